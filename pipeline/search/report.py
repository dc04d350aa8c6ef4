"""What a search found: the best trials on the terminal, all of them in files."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial
from rich.console import Console
from rich.table import Table

from pipeline.reports import theme
from pipeline.search import plots
from pipeline.search.plan import Plan
from pipeline.search.study import Study
from pipeline.storage.files import replacing

_SHOWN = 10
_WIDTH = 120  # columns


def show(plan: Plan, ranked: list[FrozenTrial]) -> None:
    """Prints the ten best trials, with a column for each key that the space varies."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("trial", plan.search.metric.value, *map(short, plan.space)):
        table.add_column(column, justify="right", vertical="bottom", no_wrap=True)
    for place, trial in enumerate(ranked[:_SHOWN]):
        values = (plan.settings(trial.params)[key] for key in plan.space)
        cells = (str(trial.number), f"{trial.value:.4f}", *map(str, values))
        table.add_row(*cells, style="bold green" if place == 0 else None)
    # Where there is less room the lines wrap, for no figure may be missing.
    console = Console(highlight=False, width=max(Console().width, _WIDTH))
    console.print(
        f"\n{min(_SHOWN, len(ranked))} best of {len(ranked)} trials that came to their end"
    )
    console.print(table)


def short(key: str) -> str:
    """A run's key as the head of a narrow column: two lines, without its section."""
    return key.rpartition(".")[2].replace("_", "\n")


def write(folder: Path, plan: Plan, study: Study) -> None:
    """Writes `trials.csv` and the pictures."""
    write_trials(folder / "trials.csv", plan, study.trials())
    metric, space = plan.search.metric, plan.space
    drawings = {
        "history": plots.history(study.trials(), metric),
        "importance": plots.importance(study.importance(), list(space)),
        "parallel": plots.parallel(study.ranked(), space, metric),
    }
    for name, figure in drawings.items():
        theme.save(figure, folder / f"{name}.png", folder / f"{name}.svg")


def write_trials(path: Path, plan: Plan, trials: list[FrozenTrial]) -> None:
    """Writes a row per trial; of one that was stopped the value after its last epoch."""
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(
            ("trial", "state", plan.search.metric.value, "epochs", "seconds", *plan.space)
        )
        for trial in trials:
            settings = plan.settings(trial.params)
            table.writerow((*_outcome(trial), *(settings[key] for key in plan.space)))


def _outcome(trial: FrozenTrial) -> tuple[Any, ...]:
    seconds = round(trial.duration.total_seconds(), 1) if trial.duration else ""
    value = "" if trial.value is None else trial.value
    return trial.number, trial.state.name.lower(), value, trial.last_step or 0, seconds
