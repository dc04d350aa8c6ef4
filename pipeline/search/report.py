"""Report a search's results: the best trials on the terminal, all trials as a table and plots."""

import warnings
from collections.abc import Callable
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import optuna
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.importance import FanovaImportanceEvaluator
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import matplotlib as draw

from pipeline.config import short
from pipeline.reports import tables, theme
from pipeline.reports.tables import Column
from pipeline.search.plan import Plan
from pipeline.search.study import Study
from pipeline.storage.files import replacing

_SHOWN = 10  # trials
_TRIALS_FOR_IMPORTANCE = 4  # fewer give the regression trees nothing to split


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
    for name, figure in plots(study.optuna, metric, seed).items():
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


def history(study: optuna.Study, metric: str) -> Figure:
    """Plot the value of each completed trial, and the best value so far as a line."""
    figure, axes = _plot(draw.plot_optimization_history, study, (7.2, 3.4), target_name=metric)
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def importance(study: optuna.Study, metric: str, seed: int) -> Figure:
    """Plot each setting's share of the metric's variance, the largest on top.

    After Hutter et al., "An Efficient Approach for Assessing Hyperparameter Importance", ICML
    2014.
    """
    size = (7.2, 1.2 + 0.3 * len(study.trials[0].distributions))
    evaluator = FanovaImportanceEvaluator(seed=seed)
    figure, axes = _plot(draw.plot_param_importances, study, size, evaluator=evaluator)
    axes.set(ylabel="", xlabel=f"share of the variance of {metric}")
    axes.grid(visible=False)
    if legend := axes.get_legend():
        legend.remove()
    return figure


def parallel(study: optuna.Study, metric: str) -> Figure:
    """Plot a line for each completed trial through its value and its settings, dark if good."""
    keys = sorted(study.trials[0].distributions)
    size = (2.4 + 1.05 * len(keys), 4.2)
    figure, axes = _plot(draw.plot_parallel_coordinate, study, size, target_name=metric)
    heads = [key.replace(".", "\n").replace("_", "\n") for key in (metric, *keys)]
    axes.set_xticks(range(len(heads)), heads, rotation=0)
    axes.tick_params(axis="x", pad=10)
    for each in figure.axes[:1] + figure.axes[2:]:  # the second has the colours
        each.grid(visible=False)
    return figure


def _plot(
    function: Callable[..., Axes], study: optuna.Study, size: tuple[float, float], **options: object
) -> tuple[Figure, Axes]:
    """Let Optuna draw, in the report's colours instead of the style `ggplot` that it sets."""
    plt.switch_backend("Agg")  # opens no window
    with matplotlib.rc_context(theme.STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental functions; a range with one value
        axes = function(study, **options)
    figure = axes.get_figure(root=True)
    assert figure is not None
    plt.close(figure)
    figure.set_size_inches(*size)
    figure.set_layout_engine("constrained")
    axes.set_title("", loc="left")
    axes.set_facecolor(theme.SURFACE)
    axes.grid(color=theme.LINE)
    return figure, axes


def plots(study: optuna.Study, metric: str, seed: int) -> dict[str, Figure]:
    """Return the plots, drawn by Optuna, by the names of their files.

    The importance of settings is missing if the completed trials are too few or all equal.
    """
    found = {"history": history(study, metric), "parallel": parallel(study, metric)}
    values = [trial.value for trial in study.get_trials(states=[TrialState.COMPLETE])]
    if len(values) >= _TRIALS_FOR_IMPORTANCE and len(set(values)) > 1:
        found["importance"] = importance(study, metric, seed)
    return found
