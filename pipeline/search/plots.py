"""Pictures of a search: how it went, which settings matter, which ones are good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from pipeline.reports import theme
from pipeline.search.plan import Metric

_DONE, _BEST = theme.colour(1), theme.colour(3)
_HEIGHT = 3.4  # inches


@matplotlib.rc_context(theme.STYLE)
def history(trials: Sequence[FrozenTrial], metric: Metric) -> Figure:
    """Each trial's value in the order of their start, and the best so far as a line."""
    figure = Figure((6.4, _HEIGHT))
    axes = figure.subplots()
    done = [t for t in trials if t.state is TrialState.COMPLETE]
    stopped = [t for t in trials if t.state is TrialState.PRUNED and t.value is not None]
    failed = [t.number for t in trials if t.state is TrialState.FAIL]
    better = min if metric.direction == "minimize" else max
    values = [t.value or 0.0 for t in done]
    best = list(accumulate(values, better))
    numbers = [t.number for t in done]
    last = max(t.number for t in trials)
    axes.step(
        [*numbers, last], [*best, best[-1]], where="post", color=_BEST, lw=1.6, label="best so far"
    )
    axes.plot(numbers, values, "o", ms=5, color=_DONE, label="trained to the end")
    hollow: dict[str, Any] = {"mfc": theme.SURFACE, "mec": theme.MUTED, "ls": ""}
    if stopped:
        label = "stopped early"
        axes.plot(
            [t.number for t in stopped],
            [t.value or 0.0 for t in stopped],
            "o",
            ms=4,
            label=label,
            **hollow,
        )
    if failed:
        bottom = axes.get_xaxis_transform()
        axes.plot(
            failed, [0.02] * len(failed), "x", color=theme.WRONG, transform=bottom, label="failed"
        )
    axes.set(xlabel="trial", ylabel=metric.value, xlim=(-0.5, last + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if metric is Metric.val_loss:  # spans from those that were stopped to the best
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 7)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    figure.legend(loc="outside upper left", ncols=4, labelcolor=theme.INK)
    return figure


@matplotlib.rc_context(theme.STYLE)
def importance(shares: Mapping[str, float], keys: Sequence[str]) -> Figure:
    """A bar for each key that the space varies, the most important one on top."""
    figure = Figure((6.4, 0.9 + 0.32 * len(keys)))
    axes = figure.subplots()
    names = list(shares)[::-1]
    bars = axes.barh(names, [shares[name] for name in names], height=0.6, color=_DONE)
    axes.bar_label(bars, fmt=lambda share: f"{share * 100:.0f} %", padding=4, color=theme.INK)
    axes.set(xticks=[], xlabel="share of the differences between trials that a setting explains")
    axes.tick_params(axis="y", labelcolor=theme.INK)
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.set_xlim(0, max([*shares.values(), 0.01]) * 1.12)
    if not shares:
        axes.text(0.5, 0.5, "not enough trials to tell", ha="center", transform=axes.transAxes)
        axes.axis("off")
    return figure


@matplotlib.rc_context(theme.STYLE)
def parallel(
    ranked: Sequence[FrozenTrial], space: Mapping[str, BaseDistribution], metric: Metric
) -> Figure:
    """A line for each trial, from axis to axis: its settings, and at the right what came out."""
    figure = Figure((1.8 + 0.95 * len(space), 4.2))
    axes = figure.subplots()
    columns = [*(_place(space[key], [t.params[key] for t in ranked]) for key in space)]
    values = np.array([t.value for t in ranked])
    lowest, highest = values.min(), values.max()
    columns.append((values - lowest) / ((highest - lowest) or 1))
    quarter = max(1, round(len(ranked) / 4))
    for place, line in reversed(list(enumerate(np.transpose(columns)))):
        style = _line(place, quarter)
        axes.plot(range(len(columns)), line, **style)
    for place, key in enumerate(space):
        _scale(axes, place, _ticks(space[key]))
    _scale(axes, len(space), [(0, f"{lowest:.4f}"), (1, f"{highest:.4f}")])
    axes.set(xlim=(-0.1, len(space) + 0.45), ylim=(-0.05, 1.05), yticks=[])
    heads = [
        *(key.replace(".", "\n").replace("_", "\n") for key in space),
        metric.value.replace("_", "\n"),
    ]
    axes.set_xticks(range(len(columns)), heads)
    axes.tick_params(
        axis="x", labelcolor=theme.INK, top=True, bottom=False, labeltop=True, labelbottom=False
    )
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    for place, label in ((0, "best trial"), (1, "best quarter"), (len(ranked), "other trials")):
        axes.plot([], [], label=label, **_line(place, max(2, quarter)))
    figure.legend(loc="outside lower left", ncols=3, labelcolor=theme.INK)
    return figure


def _line(place: int, quarter: int) -> dict[str, Any]:
    if place == 0:
        return {"color": _BEST, "lw": 2.4, "zorder": 4}
    if place < quarter:
        return {"color": _DONE, "lw": 1.2, "zorder": 3}
    return {"color": theme.MUTED, "lw": 0.7, "alpha": 0.45, "zorder": 2}


def _place(dimension: BaseDistribution, values: Sequence[Any]) -> NDArray[np.float64]:
    """Where the values lie on an axis from 0 to 1."""
    if isinstance(dimension, CategoricalDistribution):
        steps = max(1, len(dimension.choices) - 1)
        return np.array([dimension.choices.index(value) for value in values]) / steps
    assert isinstance(dimension, IntDistribution | FloatDistribution)
    low, high = float(dimension.low), float(dimension.high)
    placed = np.array(values, np.float64)
    if dimension.log:
        low, high, placed = np.log(low), np.log(high), np.log(placed)
    return (placed - low) / (high - low)


def _ticks(dimension: BaseDistribution) -> list[tuple[float, str]]:
    if isinstance(dimension, CategoricalDistribution):
        places = _place(dimension, dimension.choices)
        return [(float(p), str(c)) for p, c in zip(places, dimension.choices, strict=True)]
    assert isinstance(dimension, IntDistribution | FloatDistribution)
    return [(0.0, f"{dimension.low:g}"), (1.0, f"{dimension.high:g}")]


def _scale(axes: Axes, place: int, ticks: Sequence[tuple[float, str]]) -> None:
    axes.plot((place, place), (0, 1), color=theme.MUTED, lw=1, zorder=1)
    for height, label in ticks:
        box = {"facecolor": theme.SURFACE, "edgecolor": "none", "pad": 1.5, "alpha": 0.85}
        style: dict[str, Any] = {"size": 8, "va": "center", "bbox": box, "zorder": 5}
        axes.text(place + 0.08, height, label, **style)
