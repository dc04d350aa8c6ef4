"""The report on somebody's own pictures, as one HTML file in the style of the comparison page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.evaluation import metrics
from pipeline.reports import html, plots, theme
from pipeline.scoring import pictures
from pipeline.scoring.scored import Scored

_WORST = 48  # misread pictures
_REFUSED = 100  # lines
_SIDE = 168  # pixels of a picture: twice as many as it is wide, for screens that show them
_COLOUR = 3


def fill(scored: Scored, found: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """Return the page: `found` are the metrics, `about` names source, bundle and command."""
    bins = metrics.reliability(scored.probabilities, scored.labels)
    wrong = np.flatnonzero(scored.probabilities.argmax(axis=1) != scored.labels)
    worst = wrong[np.argsort(-scored.probabilities[wrong].max(axis=1), kind="stable")][:_WORST]
    table = scored.table
    refused = table[table["detail"].notna() & table["label"].notna()][["file", "detail"]]
    content = {
        "f": found,
        "noun": scored.noun,
        "preparation": scored.preparation,
        "about": about,
        "matrix": theme.svg(
            plots.confusion_matrix(np.array(found["confusion"]), scored.classes, scored.noun)
        ),
        "reliability": theme.svg(plots.reliability_diagram(bins, _COLOUR)),
        "worst": [_mistake(scored, int(place)) for place in scored.places[worst]],
        "refused": refused.head(_REFUSED).to_numpy().tolist(),
        "confidence": pictures.LIMITS.confidence_threshold,
        "accent": theme.css_colour(_COLOUR),
    }
    return html.fill("page.html.j2", content, Path(__file__).parent)


def _mistake(scored: Scored, place: int) -> dict[str, Any]:
    content, row = scored.contents[place](), scored.table.iloc[place]
    original, seen = (
        pictures.both(content, _SIDE, scored.preparation)
        if isinstance(content, bytes)
        else (None, None)
    )
    return {**row, "original": original, "seen": seen}
