"""Report of a drift check: `index.html`, one self-contained file, and `drift.json`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from monitoring.drift.drift_tests import NEEDED, Findings, digit_counts, feature
from monitoring.drift.service_client import Predictions, Response
from pipeline.reports import theme
from pipeline.storage.files import replacing, write_json
from serve.imaging.normalise import data_uri
from serve.models.drift_reference import Reference

_EXAMPLES = 24  # images in each row
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
        plots["features"] = theme.svg(_feature_plot(window, response.reference))
    if findings.enough:
        plots["tests"] = theme.svg(_p_value_plot(findings))
    template = theme.templates(Path(__file__).parent).get_template("report.html.j2")
    images = _examples(response.predictions)
    html = template.render(summary, colours=theme.css(), plots=plots, examples=images)
    with replacing(folder / "index.html") as temporary:
        temporary.write_text(html, encoding="utf-8")


@matplotlib.rc_context(theme.STYLE)
def _feature_plot(window: Reference, reference: Reference) -> Figure:
    """Plot histograms of the features: the window over the reference."""
    figure = Figure((8.4, 5.2))
    places = figure.subplots(2, 3).ravel()
    for axes, (name, title) in zip(places, _TITLES.items(), strict=False):
        now, then = feature(window, name), feature(reference, name)
        low, high = np.quantile(np.concatenate([now, then]), [0.002, 0.998])
        edges = np.linspace(low, max(high, low + 1e-3), 25)
        counts = (np.histogram(np.clip(each, low, high), edges)[0] for each in (now, then))
        _histograms(axes, edges, *counts)
        axes.set(title=title)
    _histograms(places[-1], np.arange(11) - 0.5, digit_counts(window), digit_counts(reference))
    places[-1].set(title="Predicted digit", xticks=range(10))
    places[0].legend(loc="upper right")
    return figure


def _histograms(
    axes: Axes, edges: NDArray[Any], window: NDArray[np.int64], reference: NDArray[np.int64]
) -> None:
    now, then = (100 * counts / max(1, counts.sum()) for counts in (window, reference))
    axes.stairs(now, edges, fill=True, color=theme.colour(1), alpha=0.55, label="now")
    axes.stairs(then, edges, color=theme.INK, lw=1.2, label="reference")
    axes.set(ylabel="% of images")
    axes.grid(visible=False, axis="x")


@matplotlib.rc_context(theme.STYLE)
def _p_value_plot(findings: Findings) -> Figure:
    """Plot the corrected p-value of each softmax output; below the dashed line is drift."""
    figure = Figure((8.4, 2.6))
    axes = figure.subplots()
    values = [max(result.value, _SMALLEST_P) for result in findings.p_values.values()]
    for digit, result in enumerate(findings.p_values.values()):
        color = theme.WRONG if result.drift else theme.colour(3)
        axes.semilogy(digit, values[digit], "o", color=color, ms=7)
        axes.axhline(result.limit, color=theme.WRONG, lw=1, ls="--")
    axes.set(xticks=range(len(values)), xlabel="softmax output", ylabel="p-value (Holm)")
    axes.set(ylim=(min(min(values) / 10, 1e-6), 3), title="Kolmogorov-Smirnov test, p-values")
    return figure


def _examples(predictions: Predictions) -> dict[str, list[dict[str, Any]]]:
    """Return images to look at: the latest, and those with the lowest confidence."""
    confidence = predictions.probabilities.max(axis=1)
    latest = np.arange(len(confidence))[::-1][:_EXAMPLES]
    lowest = np.argsort(confidence, kind="stable")[:_EXAMPLES]
    return {
        title: [
            {
                "uri": data_uri(predictions.images[place]),
                "digit": int(predictions.probabilities[place].argmax()),
                "confidence": float(confidence[place]),
            }
            for place in places
        ]
        for title, places in (("Latest images", latest), ("Lowest confidence", lowest))
    }
