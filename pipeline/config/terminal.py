"""What a stage shows on a terminal."""

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)


class Bars(Progress):
    """Progress bars that vanish at their end; without a terminal they draw nothing."""

    def __init__(self, *more: ProgressColumn) -> None:
        console = Console(highlight=False)
        super().__init__(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            *more,
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )


class Bar(Bars):
    """A single bar."""

    def __init__(self, title: str, total: int) -> None:
        super().__init__(TimeRemainingColumn())
        self._task = self.add_task(title, total=total)

    def move(self, completed: int) -> None:
        """Show how much of `total` is completed."""
        self.update(self._task, completed=completed)

    def step(self) -> None:
        """Show one more as completed."""
        self.advance(self._task)
