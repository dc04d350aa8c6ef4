"""Progress of jobs: bars while they run on a terminal, and a line for each event everywhere."""

from rich.progress import TaskID, TextColumn, TimeElapsedColumn

from pipeline.config.terminal import Bars


class Display(Bars):
    """One bar for all jobs and one for each running job."""

    def __init__(self, title: str, total: int) -> None:
        super().__init__(TextColumn("{task.fields[text]}", markup=False), TimeElapsedColumn())
        self._all = self.add_task(title, total=total, text="")
        self._running: dict[str, TaskID] = {}

    def show(self, job: str, epoch: int, epochs: int | None, text: str) -> None:
        """Move the bar of a running job, named by its title; the first call adds the bar."""
        if job not in self._running:
            self._running[job] = self.add_task(job, total=epochs, text="")
        self.update(self._running[job], completed=epoch, total=epochs, text=text)

    def end(self, job: str, line: str) -> None:
        """Remove the bar of a job and print how it ended."""
        if job in self._running:
            self.remove_task(self._running.pop(job))
        self.say(f"{job}: {line}")

    def show_total(self, ended: int, text: str = "") -> None:
        """Move the bar of all jobs."""
        self.update(self._all, completed=ended, text=text)

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self.console.print(line, markup=False, soft_wrap=True)
