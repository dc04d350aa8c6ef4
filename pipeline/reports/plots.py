"""Plots: each function draws arrays and returns a matplotlib figure."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from pipeline.data.dataset import Images
from pipeline.evaluation.metrics import Bins, Counts
from pipeline.evaluation.results import Curves
from pipeline.evaluation.significance import wilson
from pipeline.reports import theme
from pipeline.reports.pairwise import Candidate

_WIDTH = 4.2  # inches: two side by side on a desk, one on a phone
_COLUMNS = 8  # mistakes in a row
FEW = 3  # candidates whose curves stay apart also with twice as many lines


@matplotlib.rc_context(theme.STYLE)
def confusion_matrix(confusion: Counts, classes: Sequence[str], noun: str) -> Figure:
    """Draw the confusion matrix; mistakes are shaded by their number, right answers are plain."""
    side = max(_WIDTH, _WIDTH * len(classes) / 15)  # numbers stay apart
    figure, axes = _figure(side, side)
    most = max(1, int((confusion - np.diag(confusion.diagonal())).max()))
    for (actual, predicted), count in np.ndenumerate(confusion):
        right = actual == predicted
        color, alpha = (theme.LINE, 1) if right else (theme.WRONG, 0.65 * count / most)
        corner = (predicted - 0.46, actual - 0.46)
        axes.add_patch(Rectangle(corner, 0.92, 0.92, lw=0, color=color, alpha=alpha))
        if count:
            heavy = right or count > most / 2
            weight = "bold" if heavy else "normal"
            place = (predicted, actual)
            axes.text(*place, f"{count}", size=8, weight=weight, ha="center", va="center")
    places = range(len(confusion))
    axes.set(xlim=(-0.5, len(confusion) - 0.5), ylim=(len(confusion) - 0.5, -0.5), aspect="equal")
    axes.set(xlabel=f"predicted {noun}", ylabel=f"true {noun}")
    axes.set_xticks(places, classes, rotation=90 if max(map(len, classes)) > 2 else 0)
    axes.set_yticks(places, classes)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return figure


@matplotlib.rc_context(theme.STYLE)
def reliability_diagram(bins: Bins, number: int) -> Figure:
    """Draw accuracy over confidence with 95 % intervals; below, the number of images.

    Bins with few images have wide intervals: only those off the diagonal show miscalibration.
    `number` decides the colour (`theme.line_style`).
    """
    figure = Figure((_WIDTH, _WIDTH))
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    some, style = bins.images > 0, theme.line_style(number)
    count, confidence, accuracy = (values[some] for values in bins)
    low, high = np.transpose(
        [wilson(round(n * share), n) for n, share in zip(count.tolist(), accuracy, strict=True)]
    )
    upper.plot((0, 1), (0, 1), "--", color=theme.MUTED, lw=1)
    whiskers = np.abs((accuracy - low, high - accuracy))
    upper.errorbar(confidence, accuracy, whiskers, fmt="o", ms=5, lw=1.2, **style)
    upper.set(ylim=(-0.03, 1.03), ylabel="accuracy")
    upper.text(1, 0.02, "dashed: perfect calibration", color=theme.MUTED, size=8, ha="right")
    middle, width = (np.flatnonzero(some) + 0.5) / len(some), 0.9 / len(some)
    lower.bar(middle, count, width, **style)
    lower.set(yscale="log", ylabel="images", xlim=(0, 1.01), xlabel="confidence")
    lower.set_ylim(bottom=0.7)
    lower.yaxis.set_major_formatter("{x:,.0f}")
    for axis in (upper.xaxis, upper.yaxis):
        axis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    return figure


@matplotlib.rc_context(theme.STYLE)
def mistakes(images: Images, captions: Sequence[str], noun: str) -> Figure:
    """Draw images with a caption under each, eight in a row; (k, h, w) or (k, h, w, 3) uint8."""
    ink = theme.greys(noun)
    rows = max(1, -(-len(images) // _COLUMNS))
    figure, axes = _figure(_COLUMNS * 0.95, rows * 1.2)
    for place, (image, caption) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(place, _COLUMNS)
        where = (column, column + 0.9, row * 1.27 + 0.9, row * 1.27)
        axes.imshow(image, ink, extent=where, vmin=0, vmax=255)
        axes.text(column + 0.45, row * 1.27 + 1.05, caption, size=8, ha="center", va="center")
    if not len(images):
        axes.text(_COLUMNS / 2, 0.5, "no mistakes", ha="center", size=12)
    axes.set(xlim=(0, _COLUMNS - 0.1), ylim=(rows * 1.27, 0), aspect="equal")
    axes.axis("off")
    return figure


@matplotlib.rc_context(theme.STYLE)
def learning_curves(candidates: Sequence[Candidate], *metrics: str) -> Figure:
    """Draw a panel per metric (`accuracy`, `loss`): validation by epoch.

    Of no more than `FEW` candidates the training curves are drawn too, dashed.
    """
    figure = Figure((_WIDTH * len(metrics), 3.4))
    panels = np.atleast_1d(figure.subplots(1, len(metrics)))
    for axes, metric in zip(panels, metrics, strict=True):
        for candidate in candidates:
            curves, style = candidate.result.curves, theme.line_style(candidate.colour)
            label = f"{candidate.label}, validation" if len(candidates) <= FEW else candidate.label
            axes.plot(curves["step"], curves[f"val_{metric}"], "o-", ms=3, label=label, **style)
            if len(candidates) <= FEW:
                label = f"{candidate.label}, training"
                axes.plot(curves["step"], curves[f"train_{metric}"], "--", label=label, **style)
        axes.set(title=metric, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        if metric == "accuracy":
            _scale_accuracy(axes, [c.result.curves for c in candidates])
        else:
            _scale_loss(axes)
        axes.legend(labelcolor=theme.INK, ncols=1 + len(candidates) // 7)
    return figure


def _scale_accuracy(axes: Axes, curves: Sequence[Curves]) -> None:
    # From where most of it is learned: the first epochs would leave the others no room.
    later = min(min(c["val_accuracy"][len(c["step"]) // 4 :]) for c in curves)
    if len(curves) <= FEW:
        later = min(later, *(c["train_accuracy"][-1] for c in curves))
    axes.set_ylim(bottom=later - 0.1 * (1 - later))
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))


def _scale_loss(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


@matplotlib.rc_context(theme.STYLE)
def accuracy_intervals(candidates: Sequence[Candidate]) -> Figure:
    """Draw the test accuracy of each with its 95 % interval."""
    figure, axes = _figure(_WIDTH, 0.9 + 0.45 * len(candidates))
    for row, candidate in enumerate(candidates):
        metrics, style = candidate.result.metrics, theme.line_style(candidate.colour)
        accuracy = metrics["test_accuracy"]
        axes.plot(metrics["wilson"], (row, row), lw=2, **style)
        axes.plot(accuracy, row, "o", ms=7, **style)
        axes.text(accuracy, row - 0.18, f"{accuracy * 100:.2f} %", ha="center", va="bottom")
    names = [f"{c.label}\n{c.name if len(c.name) < 20 else c.name[:18] + '…'}" for c in candidates]
    axes.set_yticks(range(len(candidates)), names)
    axes.tick_params(axis="y", labelcolor=theme.INK)
    axes.set(ylim=(len(candidates) - 0.5, -0.7), xlabel="test accuracy with 95 % interval")
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    return figure


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure((width, height))
    return figure, figure.subplots()
