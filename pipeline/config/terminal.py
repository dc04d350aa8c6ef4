"""What a stage shows on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Bar(Progress):
    """A progress bar that vanishes at its end; without a terminal it draws nothing."""

    def __init__(self, title: str, total: int) -> None:
        console = Console(highlight=False)
        super().__init__(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self.add_task(title, total=total)

    def move(self, completed: int) -> None:
        """Show how much of `total` is completed."""
        self.update(self._task, completed=completed)

    def step(self) -> None:
        """Show one more as completed."""
        self.advance(self._task)
