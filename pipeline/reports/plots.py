"""Pictures of figures: each function draws arrays and returns a matplotlib figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from pipeline.data.dataset import Images
from pipeline.evaluation.metrics import Bins, Counts
from pipeline.evaluation.significance import wilson
from pipeline.reports import theme

Curves = Mapping[str, Sequence[float]]

_WIDTH = 4.2  # inches: two side by side on a desk, one on a phone
_MARKERS = "os^Dvp"
_COLOURS = sum(name.startswith("run-") for name in theme.COLOURS)
_ACROSS = 8
FEW = 3  # experiments whose curves stay apart also with twice as many lines


@matplotlib.rc_context(theme.STYLE)
def confusion_matrix(confusion: Counts) -> Figure:
    """Mistakes shaded by their number, hits in plain: the eye goes to what is confused."""
    figure, axes = _figure(_WIDTH, _WIDTH)
    most = max(1, int((confusion - np.diag(confusion.diagonal())).max()))
    for (actual, predicted), count in np.ndenumerate(confusion):
        hit = actual == predicted
        color, alpha = (theme.LINE, 1) if hit else (theme.WRONG, 0.65 * count / most)
        corner = (predicted - 0.46, actual - 0.46)
        axes.add_patch(Rectangle(corner, 0.92, 0.92, lw=0, color=color, alpha=alpha))
        if count:
            heavy = hit or count > most / 2
            weight = "bold" if heavy else "normal"
            style: dict[str, Any] = {"ha": "center", "va": "center", "size": 8, "weight": weight}
            axes.text(predicted, actual, f"{count}", **style)
    digits = range(len(confusion))
    axes.set(xlim=(-0.5, len(confusion) - 0.5), ylim=(len(confusion) - 0.5, -0.5), aspect="equal")
    axes.set(xticks=digits, yticks=digits, xlabel="read as", ylabel="true digit")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return figure


@matplotlib.rc_context(theme.STYLE)
def reliability_diagram(bins: Bins, run: int) -> Figure:
    """Accuracy over confidence with 95 % intervals; below, how many images each point stands for.

    Bins with few images have wide intervals: only those apart from the diagonal say something.
    """
    figure = Figure((_WIDTH, _WIDTH))
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    some, color = bins.images > 0, theme.colour(run)
    count, confidence, accuracy = (values[some] for values in bins)
    low, high = np.transpose(
        [wilson(round(n * share), n) for n, share in zip(count.tolist(), accuracy, strict=True)]
    )
    upper.plot((0, 1), (0, 1), "--", color=theme.MUTED, lw=1)
    whiskers = np.abs((accuracy - low, high - accuracy))
    upper.errorbar(confidence, accuracy, whiskers, fmt="o", color=color, ms=5, lw=1.2)
    upper.set(ylim=(-0.03, 1.03), ylabel="share read right")
    upper.text(1, 0.02, "dashed: as right as sure", color=theme.MUTED, size=8, ha="right")
    middle, width = (np.flatnonzero(some) + 0.5) / len(some), 0.9 / len(some)
    lower.bar(middle, count, width, color=color)
    lower.set(yscale="log", ylabel="images", xlim=(0, 1.01), xlabel="confidence")
    lower.set_ylim(bottom=0.7)
    lower.yaxis.set_major_formatter("{x:,.0f}")
    for axis in (upper.xaxis, upper.yaxis):
        axis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    return figure


@matplotlib.rc_context(theme.STYLE)
def mistakes(images: Images, captions: Sequence[str]) -> Figure:
    """Images with a caption under each, eight in a row; (k, side, side) uint8."""
    rows = max(1, -(-len(images) // _ACROSS))
    figure, axes = _figure(_ACROSS * 0.95, rows * 1.2)
    for place, (image, caption) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(place, _ACROSS)
        where = (column, column + 0.9, row * 1.27 + 0.9, row * 1.27)
        axes.imshow(image, "gray_r", extent=where, vmin=0, vmax=255)
        axes.text(column + 0.45, row * 1.27 + 1.05, caption, size=8, ha="center", va="center")
    if not len(images):
        axes.text(_ACROSS / 2, 0.5, "no mistakes", ha="center", size=12)
    axes.set(xlim=(0, _ACROSS - 0.1), ylim=(rows * 1.27, 0), aspect="equal")
    axes.axis("off")
    return figure


@matplotlib.rc_context(theme.STYLE)
def learning_curves(runs: Mapping[int, Curves], *metrics: str) -> Figure:
    """One panel per metric (`accuracy`, `loss`): validation full, training dashed."""
    figure = Figure((_WIDTH * len(metrics), 3.4))
    panels = np.atleast_1d(figure.subplots(1, len(metrics)))
    for axes, metric in zip(panels, metrics, strict=True):
        for run, curves in runs.items():
            marker, color = _MARKERS[(run - 1) % len(_MARKERS)], theme.colour(run)
            epoch, label = curves["step"], f"run {run}"
            axes.plot(epoch, curves[f"train_{metric}"], "--", color=color, lw=1)
            style = {"color": color, "marker": marker, "ms": 4, "lw": 1.8}
            axes.plot(epoch, curves[f"val_{metric}"], label=label, **style)
        axes.set(title=metric, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        axes.plot([], [], "--", color=theme.MUTED, lw=1, label="training")
        axes.legend(labelcolor=theme.INK)
        if metric == "accuracy":
            axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    return figure


@matplotlib.rc_context(theme.STYLE)
def lettered_curves(experiments: Mapping[str, Curves], metric: str) -> Figure:
    """Validation curves of many, each with its letter at the end; of few the training's too."""
    figure, axes = _figure(_WIDTH, 3.4)
    for place, curves in enumerate(experiments.values()):
        if len(experiments) <= FEW:
            axes.plot(curves["step"], curves[f"train_{metric}"], "--", lw=1, **shade(place))
        axes.plot(curves["step"], curves[f"val_{metric}"], lw=1.6, **shade(place))
        axes.plot(curves["step"][-1], curves[f"val_{metric}"][-1], "o", ms=5, mew=0, **shade(place))
    axes.set(title=metric, xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    if metric == "accuracy":
        # From where most of it is learned: the first epochs would leave the others no room.
        later = [min(c["val_accuracy"][len(c["step"]) // 4 :]) for c in experiments.values()]
        axes.set_ylim(bottom=min(later) - 0.1 * (1 - min(later)))
        axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    else:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    _letter(axes, {letter: (c["step"], c[f"val_{metric}"]) for letter, c in experiments.items()})
    return figure


def shade(place: int) -> dict[str, Any]:
    """How the line at a place among many is drawn: six colours, and the same six pale."""
    return {"color": theme.colour(place + 1), "alpha": 0.5 if is_pale(place) else 1.0}


def is_pale(place: int) -> bool:
    """Whether the place has a colour that an earlier one has in full."""
    return place % (2 * _COLOURS) >= _COLOURS


def _letter(axes: Axes, lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> None:
    """Writes each letter beside the end of its line, apart from those of lines as long."""
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = {letter: tuple(to_axes.transform((x[-1], y[-1]))) for letter, (x, y) in lines.items()}
    of_length: dict[float, list[str]] = {}
    for letter, (x, _) in lines.items():
        of_length.setdefault(x[-1], []).append(letter)
    heights = {
        letter: height
        for letters in of_length.values()
        for letter, height in zip(letters, _apart([ends[n][1] for n in letters]), strict=True)
    }
    for place, (letter, end) in enumerate(ends.items()):
        axes.annotate(
            letter,
            end,
            (end[0] + 0.06, heights[letter]),
            "axes fraction",
            va="center",
            weight="bold",
            color=theme.colour(place + 1),
            bbox={"pad": 0.5, "lw": 0, "color": theme.SURFACE, "alpha": 0.8},
            arrowprops={"arrowstyle": "-", "lw": 0.6, "shrinkA": 1, "shrinkB": 3, **shade(place)},
            annotation_clip=False,
        )


def _apart(wanted: Sequence[float], gap: float = 0.055, top: float = 1.0) -> list[float]:
    """Heights near the wanted ones and in their order, a gap between each two, none over `top`."""
    order = np.argsort(wanted, kind="stable")
    heights = np.array(wanted, dtype=float)
    for below, above in pairwise(order):
        heights[above] = max(heights[above], heights[below] + gap)
    for place in order[::-1]:
        heights[place] = min(heights[place], top)
        top = heights[place] - gap
    return [float(height) for height in heights]


@matplotlib.rc_context(theme.STYLE)
def accuracy_intervals(runs: Mapping[int, Mapping[str, Any]]) -> Figure:
    """Test accuracy with its interval, one line per run; `name`, `test_accuracy`, `wilson` each."""
    figure, axes = _figure(_WIDTH, 0.9 + 0.45 * len(runs))
    for place, (run, figures) in enumerate(runs.items()):
        accuracy = figures["test_accuracy"]
        axes.plot(figures["wilson"], (place, place), color=theme.colour(run), lw=2)
        axes.plot(accuracy, place, "o", color=theme.colour(run), ms=7)
        axes.text(accuracy, place - 0.18, f"{accuracy * 100:.2f} %", ha="center", va="bottom")
    axes.set_yticks(
        range(len(runs)), [f"run {run}\n{figures['name']}" for run, figures in runs.items()]
    )
    axes.tick_params(axis="y", labelcolor=theme.INK)
    axes.set(ylim=(len(runs) - 0.5, -0.7), xlabel="test accuracy, 95 % interval")
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    return figure


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure((width, height))
    return figure, figure.subplots()
