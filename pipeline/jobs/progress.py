"""Progress of jobs: bars while they run on a terminal, and a line for each event everywhere."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)


class Display:
    """One bar for all jobs and one for each running job; the bars vanish at the end."""

    def __init__(self, title: str, total: int) -> None:
        self._console = Console(highlight=False)
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}", markup=False),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._all = self._bars.add_task(title, total=total, text="")
        self._running: dict[str, TaskID] = {}

    def __enter__(self) -> Display:
        """Show the bars, if this is a terminal."""
        self._bars.start()
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        """Remove the bars."""
        self._bars.stop()

    def update(self, job: str, epoch: int, epochs: int | None, text: str) -> None:
        """Move the bar of a running job, named by its title; the first call adds the bar."""
        if job not in self._running:
            self._running[job] = self._bars.add_task(job, total=epochs, text="")
        self._bars.update(self._running[job], completed=epoch, total=epochs, text=text)

    def end(self, job: str, line: str) -> None:
        """Remove the bar of a job and print how it ended."""
        if job in self._running:
            self._bars.remove_task(self._running.pop(job))
        self.say(f"{job}: {line}")

    def show_total(self, ended: int, text: str = "") -> None:
        """Move the bar of all jobs."""
        self._bars.update(self._all, completed=ended, text=text)

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self._console.print(line, markup=False, soft_wrap=True)
