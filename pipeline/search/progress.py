"""What a search says while it runs: a bar for each trial on a terminal, lines everywhere."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from optuna.trial import FrozenTrial
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from pipeline.search.plan import Plan
from pipeline.search.study import Study


class Display:
    """Follows a study. The bars vanish at the end; the lines, one for each trial, stay."""

    def __init__(self, study: Study, plan: Plan) -> None:
        self._study, self._plan = study, plan
        self._console = Console(highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self._bars = Progress(
            *columns,
            TextColumn("{task.fields[value]}"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._of_trial: dict[int, TaskID] = {}

    def __enter__(self) -> Display:
        """Shows how far the study is."""
        self._bars.start()
        self._total = self._bars.add_task("trials", total=self._plan.search.trials, value="")
        self._show_total()
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        """Takes the bars away."""
        self._bars.stop()

    def started(self, number: int, epochs: int) -> None:
        """A trial begins."""
        bar = self._bars.add_task(f"trial {number}", total=epochs, value="")
        self._of_trial[number] = bar

    def epoch(self, number: int, epoch: int, value: float) -> None:
        """A trial has come so far."""
        shown = f"{self._plan.search.metric.value} {value:.4f}"
        self._bars.update(self._of_trial[number], completed=epoch, value=shown)

    def completed(self, number: int, value: float, epoch: int, epochs: int) -> None:
        """A trial has a result."""
        reached = f"{self._plan.search.metric.value} {value:.4f} (epoch {epoch}/{epochs})"
        self._end(number, f"{reached}  {best(self._study.ranked())}")

    def pruned(self, number: int, epoch: int) -> None:
        """A trial was worse than others."""
        self._end(number, f"stopped after epoch {epoch}")

    def failed(self, number: int, reason: str, log: Path) -> None:
        """A trial has no result."""
        self._end(number, f"failed, {reason}; see {log}")

    def _end(self, number: int, line: str) -> None:
        self._bars.remove_task(self._of_trial.pop(number))
        self._console.print(f"trial {number}: {line}", soft_wrap=True)
        self._show_total()

    def _show_total(self) -> None:
        ended = [trial for trial in self._study.trials() if trial.state.is_finished()]
        self._bars.update(self._total, completed=len(ended), value=best(self._study.ranked()))


def best(ranked: list[FrozenTrial]) -> str:
    """The first of ranked trials in a few words."""
    return f"best {ranked[0].value:.4f} (trial {ranked[0].number})" if ranked else ""
