"""The report of a check: `index.html`, one file that loads nothing, and `drift.json`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from monitoring.drift.drift_tests import NEEDED, Findings, seen
from monitoring.drift.service_client import Answers, Asked
from pipeline.reports import theme
from pipeline.storage.files import replacing, write_json
from serve.imaging.png import data_uri
from serve.models.drift_reference import Reference

_SHOWN = 24  # images of a kind
_TITLES = {
    "ink": "Ink: mean of the pixels",
    "row": "Centre of mass, row",
    "column": "Centre of mass, column",
    "stroke": "Width of the strokes, pixels",
    "confidence": "Confidence of the answer",
}


def write(folder: Path, asked: Asked, window: Reference, findings: Findings) -> None:
    """Writes the report into the folder."""
    about = {
        "checked": datetime.now(UTC).isoformat(timespec="seconds"),
        "model_version": asked.version,
        "images": findings.images,
        "needed": NEEDED,
        "reference_images": len(asked.reference.probabilities),
        "enough": findings.enough,
        "drift": bool(findings.drifted),
        "drifted": findings.drifted,
        "p_values": {name: vars(found) for name, found in findings.p_values.items()},
        "psi": {name: vars(found) for name, found in findings.psi.items()},
    }
    write_json(folder / "drift.json", about)
    drawings = _drawings(window, asked.reference, findings) if findings.images else {}
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("report.html.j2").render(
        about, colours=theme.css(), drawings=drawings, shown=_shown(asked.answers)
    )
    with replacing(folder / "index.html") as temporary:
        temporary.write_text(html)


def _drawings(window: Reference, reference: Reference, findings: Findings) -> dict[str, str]:
    found = {"features": theme.svg(_features(window, reference))}
    if findings.enough:
        found["tests"] = theme.svg(_tests(findings))
    return found


@matplotlib.rc_context(theme.STYLE)
def _features(window: Reference, reference: Reference) -> Figure:
    """What comes in over what was evaluated: how it spreads."""
    figure = Figure((8.4, 5.2))
    places = figure.subplots(2, 3).ravel()
    for axes, (name, title) in zip(places, _TITLES.items(), strict=False):
        now, then = seen(window, name), seen(reference, name)
        low, high = np.quantile(np.concatenate([now, then]), [0.002, 0.998])
        edges = np.linspace(low, max(high, low + 1e-3), 25)
        _bars(
            axes, edges, *(np.histogram(np.clip(each, low, high), edges)[0] for each in (now, then))
        )
        axes.set(title=title)
    digits = [each.probabilities.argmax(axis=1) for each in (window, reference)]
    _bars(places[-1], np.arange(11) - 0.5, *(np.bincount(each, minlength=10) for each in digits))
    places[-1].set(title="Digit that was read", xticks=range(10))
    places[0].legend(loc="upper right")
    return figure


def _bars(
    axes: Axes, edges: NDArray[Any], window: NDArray[np.int64], reference: NDArray[np.int64]
) -> None:
    now, then = (100 * counts / max(1, counts.sum()) for counts in (window, reference))
    axes.stairs(now, edges, fill=True, color=theme.colour(1), alpha=0.55, label="now")
    axes.stairs(then, edges, color=theme.INK, lw=1.2, label="reference")
    axes.set(ylabel="% of images")
    axes.grid(visible=False, axis="x")


@matplotlib.rc_context(theme.STYLE)
def _tests(findings: Findings) -> Figure:
    """The p-value of each softmax output; what lies below the line is drift."""
    figure = Figure((8.4, 2.6))
    axes = figure.subplots()
    least = 1e-30  # of what is drawn
    for digit, found in enumerate(findings.p_values.values()):
        color = theme.WRONG if found.drift else theme.colour(3)
        axes.semilogy(digit, max(found.value, least), "o", color=color, ms=7)
        axes.axhline(found.limit, color=theme.WRONG, lw=1, ls="--")
    lowest = min(max(found.value, least) for found in findings.p_values.values())
    axes.set(xticks=range(len(findings.p_values)), xlabel="softmax output", ylabel="p-value")
    axes.set(ylim=(min(lowest / 10, 1e-6), 3), title="Could both be of the same kind?")
    return figure


def _shown(answers: Answers) -> dict[str, list[dict[str, Any]]]:
    """Images to look at: the latest, and those of which the model is least sure."""
    confidence = answers.probabilities.max(axis=1)
    latest = np.arange(len(confidence))[::-1][:_SHOWN]
    unsure = np.argsort(confidence, kind="stable")[:_SHOWN]
    return {
        title: [
            {
                "uri": data_uri(answers.images[place]),
                "digit": int(answers.probabilities[place].argmax()),
                "confidence": float(confidence[place]),
            }
            for place in places
        ]
        for title, places in (("The latest", latest), ("Least sure", unsure))
    }
