"""Report of a drift check: `index.html`, one self-contained file, and `drift.json`."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from monitoring.drift.drift_tests import NEEDED, Findings, class_counts, feature, features
from monitoring.drift.service_client import Predictions, Response
from pipeline.reports import theme
from pipeline.storage.files import replacing, write_json
from serve.imaging.normalise import data_uri
from serve.models.drift_reference import Reference

_EXAMPLES = 24  # images in each row
_NAMES, _LETTERS = 40, 30  # most names of classes below an axis; letters of all in a line
_SMALLEST_P = 1e-30  # smaller p-values are plotted here
_TITLES = {
    "ink": "Ink: mean of the pixels",
    "row": "Centre of mass, row",
    "column": "Centre of mass, column",
    "stroke": "Stroke width, pixels",
    "confidence": "Confidence",
}


def write(folder: Path, response: Response, window: Reference, findings: Findings) -> None:
    """Write both files of the report into the folder."""
    summary = {
        "checked": datetime.now(UTC).isoformat(timespec="seconds"),
        "model_version": response.version,
        "images": findings.images,
        "needed": NEEDED,
        "reference_images": len(response.reference.probabilities),
        "enough": findings.enough,
        "drift": bool(findings.drifted),
        "drifted": findings.drifted,
        "p_values": {name: vars(result) for name, result in findings.p_values.items()},
        "psi": {name: vars(result) for name, result in findings.psi.items()},
    }
    write_json(folder / "drift.json", summary)
    plots = {}
    if findings.images:
        plots["features"] = theme.svg(_feature_plot(window, response.reference, response.labels))
    if findings.enough:
        plots["tests"] = theme.svg(_p_value_plot(findings, response.labels))
    template = theme.templates(Path(__file__).parent).get_template("report.html.j2")
    images = _examples(response.predictions, response.labels)
    html = template.render(summary, colours=theme.css(), plots=plots, examples=images)
    with replacing(folder / "index.html") as temporary:
        temporary.write_text(html, encoding="utf-8")


@matplotlib.rc_context(theme.STYLE)
def _feature_plot(window: Reference, reference: Reference, labels: Sequence[str]) -> Figure:
    """Plot histograms of the features: the window over the reference."""
    figure = Figure((8.4, 5.2))
    places = figure.subplots(2, 3).ravel()
    shown = (*features(reference), "confidence")
    for axes, name in zip(places, shown, strict=False):
        now, then = feature(window, name), feature(reference, name)
        low, high = np.quantile(np.concatenate([now, then]), [0.002, 0.998])
        edges = np.linspace(low, max(high, low + 1e-3), 25)
        counts = (np.histogram(np.clip(each, low, high), edges)[0] for each in (now, then))
        _histograms(axes, edges, *counts)
        axes.set(title=_TITLES[name])
    classes, edges = places[len(shown)], np.arange(len(labels) + 1) - 0.5
    _histograms(classes, edges, class_counts(window), class_counts(reference))
    classes.set(title="Predicted class")
    _name_classes(classes, labels)
    for empty in places[len(shown) + 1 :]:
        empty.remove()
    places[0].legend(loc="upper right")
    return figure


def _name_classes(axes: Axes, labels: Sequence[str]) -> None:
    """Name the classes below an axis, of many or long ones only some, and upright."""
    upright = sum(map(len, labels)) > _LETTERS
    step = -(-len(labels) // _NAMES)
    places = range(0, len(labels), step)
    axes.set_xticks(places, [labels[place] for place in places], rotation=90 if upright else 0)


def _histograms(
    axes: Axes, edges: NDArray[Any], window: NDArray[np.int64], reference: NDArray[np.int64]
) -> None:
    now, then = (100 * counts / max(1, counts.sum()) for counts in (window, reference))
    axes.stairs(now, edges, fill=True, color=theme.colour(1), alpha=0.55, label="now")
    axes.stairs(then, edges, color=theme.INK, lw=1.2, label="reference")
    axes.set(ylabel="% of images")
    axes.grid(visible=False, axis="x")


@matplotlib.rc_context(theme.STYLE)
def _p_value_plot(findings: Findings, labels: Sequence[str]) -> Figure:
    """Plot the corrected p-value of each softmax output; below the dashed line is drift."""
    figure = Figure((8.4, 2.6))
    axes = figure.subplots()
    values = [max(result.value, _SMALLEST_P) for result in findings.p_values.values()]
    for place, result in enumerate(findings.p_values.values()):
        color = theme.WRONG if result.drift else theme.colour(3)
        axes.semilogy(place, values[place], "o", color=color, ms=7)
        axes.axhline(result.limit, color=theme.WRONG, lw=1, ls="--")
    axes.set(xlabel="softmax output", ylabel="p-value (Holm)")
    _name_classes(axes, labels)
    axes.set(ylim=(min(min(values) / 10, 1e-6), 3), title="Kolmogorov-Smirnov test, p-values")
    return figure


def _examples(predictions: Predictions, labels: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Return images to look at: the latest, and those with the lowest confidence."""
    confidence = predictions.probabilities.max(axis=1)
    latest = np.arange(len(confidence))[::-1][:_EXAMPLES]
    lowest = np.argsort(confidence, kind="stable")[:_EXAMPLES]
    return {
        title: [
            {
                "uri": data_uri(predictions.images[place]),
                "label": labels[predictions.probabilities[place].argmax()],
                "confidence": float(confidence[place]),
            }
            for place in places
        ]
        for title, places in (("Latest images", latest), ("Lowest confidence", lowest))
    }
