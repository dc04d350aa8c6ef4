"""HTML pages: each one file that needs no other file, no script and no network."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.config import flat
from pipeline.data.dataset import NAMES
from pipeline.evaluation import metrics
from pipeline.evaluation.metrics import Counts
from pipeline.reports import pairwise, plots, tables, theme
from pipeline.reports.pairwise import Candidate, Group, PairwiseTest


def fill(name: str, content: Mapping[str, Any], *folders: Path) -> str:
    """Return the template `name` of `folders` or of this package filled in, in our colours."""
    environment = theme.templates(*folders, Path(__file__).parent / "templates")
    environment.filters.update(
        hundredths=tables.hundredths,
        size=tables.size,
        percent=lambda share: f"{tables.hundredths(share)}\N{NO-BREAK SPACE}%",
        svg=lambda plot: _uri("image/svg+xml", plot.encode()),
        png=lambda content: _uri("image/png", content),
        image=lambda pixels, noun: _uri("image/png", image_png(pixels, inverted=noun == "digit")),
        grey=lambda pixels: _uri("image/png", image_png(pixels, inverted=False)),
        confused=confused,
        disputed=lambda candidate, other: pairwise.disputed(candidate, other).tolist(),
        css=lambda candidate: theme.css_colour(candidate.colour),
        reliability=_reliability,
    )
    return environment.get_template(name).render(content, colours=theme.css())


def _reliability(candidate: Candidate) -> str:
    """Return the reliability diagram in the colour that the candidate has on its page."""
    result = candidate.result
    bins = metrics.reliability(result.probabilities, result.labels)
    return theme.svg(plots.reliability_diagram(bins, candidate.colour))


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"


def models_page(
    kind: str,
    groups: Sequence[Group],
    tests: Sequence[PairwiseTest],
    command: str,
    extras: Mapping[str, Any] | None = None,
) -> str:
    """Return the page that shows models side by side.

    `kind` is what a candidate is called, `command` makes the page. `extras` may hold, of runs:
    `statistics` and the PNG `samples` of the data set, the PNG `ood` of what it does not show, and
    whether its models are `registered`.
    """
    extras = extras or {}
    everyone = sorted((c for group in groups for c in group), key=lambda c: c.place)
    labelled = dict(zip(pairwise.labels(groups), groups, strict=True))
    p_values = {test.other.label: tables.p_value(test.p) for test in tests}
    content = {
        "kind": kind,
        "noun": theme.noun_of(everyone[0].result.model),
        "groups": labelled,
        "everyone": everyone,
        "columns": [item for item in tables.COLUMNS.items() if item[0] not in ("run", "name")],
        "cells": {
            c.label: tables.cells(c.result.metrics) | {tables.P: p_values.get(c.label, "best")}
            for c in everyone
        },
        "reordered": [
            label for label, group in labelled.items() if not pairwise.same_validation(group)
        ],
        "tests": [(test, *pairwise.verdict(test)) for test in tests],
        "identical": pairwise.identical(everyone),
        "settings": settings({c.label: _settings(c, kind) for c in everyone}),
        "intervals": theme.svg(plots.accuracy_intervals(everyone)) if len(groups) == 1 else None,
        "curves": {
            metric: theme.svg(plots.learning_curves(everyone, metric))
            for metric in ("accuracy", "loss")
        },
        "training_shown": len(everyone) <= plots.FEW,
        "samples": extras.get("samples"),
        "counts": class_counts(extras.get("statistics", {})),
        "ood": extras.get("ood"),
        "corrupted": [c for c in everyone if c.result.corruptions],
        "registered": extras.get("registered"),
        "command": command,
    }
    return fill("models.html.j2", content)


def _settings(candidate: Candidate, kind: str) -> dict[str, Any]:
    model = candidate.result.model
    settings: dict[str, Any] = model["settings"]
    return settings if kind == "run" else {"run": model["run"], **settings}


def settings(of_models: Mapping[Any, dict[str, Any]]) -> dict[bool, dict[str, list[str]]]:
    """Return settings by dotted name, a value per model: True those that differ, False the rest."""
    plain = [{key: str(value) for key, value in flat(tree).items()} for tree in of_models.values()]
    names = dict.fromkeys(name for values in plain for name in values)
    rows = {name: [values.get(name, "\N{EN DASH}") for values in plain] for name in names}
    return {
        differ: {name: row for name, row in rows.items() if (len(set(row)) > 1) is differ}
        for differ in (True, False)
    }


def confused(confusion: list[list[int]], most: int = 3) -> list[tuple[int, int, int]]:
    """Return the commonest mistakes: place of the true class, of the predicted, how often."""
    wrong: Counts = np.array(confusion)
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = (divmod(int(place), len(wrong)) for place in order)
    return [
        (actual, read, int(wrong[actual, read])) for actual, read in pairs if wrong[actual, read]
    ]


def class_counts(statistics: dict[str, Any]) -> dict[str, list[int]]:
    """Return the images per class of each split that the statistics hold."""
    of_splits = {name: statistics.get(name, {}).get("classes") for name in NAMES}
    return {name: list(counts.values()) for name, counts in of_splits.items() if counts}


def image_png(pixels: NDArray[np.uint8], *, inverted: bool) -> bytes:
    """Return the image as PNG; digits are inverted, dark on bright as on paper."""
    file = BytesIO()
    Image.fromarray(255 - pixels if inverted else pixels).save(file, "PNG")
    return file.getvalue()
