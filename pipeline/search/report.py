"""Report a search's results: the best trials on the terminal, all trials in files."""

from __future__ import annotations

from pathlib import Path

from optuna.trial import FrozenTrial
from rich.console import Console
from rich.table import Table

from pipeline.reports import theme
from pipeline.search import plots
from pipeline.search.plan import Plan
from pipeline.search.study import Study
from pipeline.storage.files import replacing

_SHOWN = 10  # trials
_WIDTH = 120  # columns


def show(plan: Plan, ranked: list[FrozenTrial]) -> None:
    """Print the best trials, with a column for each key that the search varies."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    heads = (key.rpartition(".")[2].replace("_", "\n") for key in plan.space)
    for column in ("trial", plan.search.metric.value, *heads):
        table.add_column(column, justify="right", vertical="bottom", no_wrap=True)
    for place, trial in enumerate(ranked[:_SHOWN]):
        settings = plan.settings(trial.params)
        cells = (str(trial.number), f"{trial.value:.4f}", *(str(settings[k]) for k in plan.space))
        table.add_row(*cells, style="bold green" if place == 0 else None)
    # On a narrower terminal the lines wrap, so that every number is shown.
    console = Console(highlight=False, width=max(Console().width, _WIDTH))
    console.print(f"\n{min(_SHOWN, len(ranked))} best of {len(ranked)} completed trials")
    console.print(table)


def write(folder: Path, plan: Plan, study: Study) -> None:
    """Write `trials.csv` and the plots."""
    with replacing(folder / "trials.csv") as temporary:
        study.table().to_csv(temporary, index=False)
    metric, seed = plan.search.metric.value, plan.search.seed
    for name, figure in plots.all_plots(study.optuna, metric, seed).items():
        theme.save(figure, folder / f"{name}.png", folder / f"{name}.svg")
