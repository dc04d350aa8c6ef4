"""Report a search's results: the best trials on the terminal, all trials in files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from optuna.trial import FrozenTrial

from pipeline.config import short
from pipeline.reports import tables, theme
from pipeline.reports.tables import Column
from pipeline.search import plots
from pipeline.search.plan import Plan
from pipeline.search.study import Study
from pipeline.storage.files import replacing

_SHOWN = 10  # trials


def show(plan: Plan, ranked: list[FrozenTrial]) -> None:
    """Print the best trials, with a column for each key that the search varies."""
    best = ranked[:_SHOWN]
    settings = [plan.settings(trial.params) for trial in best]
    columns = [Column(plan.search.metric.value, [f"{trial.value:.4f}" for trial in best])]
    for key, title in short(plan.space).items():
        columns.append(Column(title.replace("_", "\n"), [str(each[key]) for each in settings]))
    print(f"\n{len(best)} best of {len(ranked)} completed trials")
    styles = ["bold green", *[""] * (len(best) - 1)]
    # On a narrow terminal the lines wrap, so that every number is shown.
    tables.show_named([f"trial {trial.number}" for trial in best], columns, styles)


def write(folder: Path, plan: Plan, study: Study) -> None:
    """Write `trials.csv` and the plots."""
    metric, seed = plan.search.metric.value, plan.search.seed
    with replacing(folder / "trials.csv") as temporary:
        table(plan, study).to_csv(temporary, index=False)
    for name, figure in plots.all_plots(study.optuna, metric, seed).items():
        theme.save(figure, folder / f"{name}.png", folder / f"{name}.svg")


def table(plan: Plan, study: Study) -> pd.DataFrame:
    """Return a row per trial that counts; a pruned trial has the value of its last epoch."""
    rows = []
    for trial in study.trials():
        settings = plan.settings(trial.params)
        rows.append(
            {
                "trial": trial.number,
                "state": trial.state.name.lower(),
                plan.search.metric.value: trial.value,
                "epochs": trial.last_step or 0,
                "seconds": trial.duration and round(trial.duration.total_seconds(), 1),
                **{key: settings[key] for key in plan.space},
            }
        )
    return pd.DataFrame(rows)
