"""Pages: each one HTML file that needs no other, no script and no network."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from numpy.typing import NDArray
from PIL import Image

from pipeline.config import flat
from pipeline.data.dataset import NAMES
from pipeline.evaluation.metrics import Counts
from pipeline.evaluation.results import Result
from pipeline.evaluation.significance import CONFIDENCE_LEVEL
from pipeline.reports import tables, theme


def render(
    comparison: dict[str, Any],
    runs: dict[int, Result],
    drawings: dict[str, str],
    data: dict[str, Any],
    refusals: bytes,
) -> str:
    """The comparison of runs as HTML.

    `drawings` are SVGs that show all runs: `accuracy`, `curves_accuracy`, `curves_loss`. `data`
    may hold `statistics` and the PNG `samples` of the data set's report. `refusals` is the PNG that
    shows what looks like a digit.
    """
    content = {
        "best": comparison["best"],
        # The best one first: it is what the reader came for.
        "runs": dict(sorted(runs.items(), key=lambda item: item[0] != comparison["best"])),
        "columns": tables.COLUMNS.values(),
        "rows": tables.rows(comparison),
        "verdicts": verdicts(comparison),
        "settings": settings({run: result.model["settings"] for run, result in runs.items()}),
        "drawings": drawings,
        "refusals": refusals,
        "samples": data.get("samples"),
        "counts": class_counts(data.get("statistics", {})),
        "colour": theme.name_of,
    }
    return filled("page.html.j2", content)


def filled(template: str, content: dict[str, Any]) -> str:
    """A template that extends `base.html.j2`, with what such templates write pictures with."""
    filters: dict[str, Callable[..., Any]] = {
        "percent": lambda share: f"{tables.hundredths(share)}\N{NO-BREAK SPACE}%",
        "svg": lambda drawing: _uri("image/svg+xml", drawing.encode()),
        "png": lambda content: _uri("image/png", content),
        "digit": lambda pixels: _uri("image/png", digit_png(pixels)),
        "confused": confused,
    }
    return fill(template, {"colours": theme.css(), **content}, **filters)


def fill(name: str, content: Mapping[str, Any], **filters: Callable[..., Any]) -> str:
    """The template `name` with `content`; HTML is escaped, a name without content is an error."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=select_autoescape(("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"hundredths": tables.hundredths, "size": tables.size, **filters}
    return environment.get_template(name).render(content)


def verdicts(comparison: dict[str, Any]) -> list[tuple[bool, str, str]]:
    """McNemar's test of each pair in words: whether they differ, the finding, its grounds."""
    said = []
    for pair, found in comparison["mcnemar"].items():
        first, second = pair.split("-")
        differ = found["p"] < 1 - CONFIDENCE_LEVEL
        only = {first: found["only_first"], second: found["only_second"]}
        better, worse = sorted((first, second), key=lambda run: -only[run])
        finding = (
            f"Run {better} reads better than run {worse}"
            if differ
            else f"No significant difference between run {first} and run {second}"
        )
        grounds = (
            f"{only[better]} images only run {better} reads right, "
            f"{only[worse]} only run {worse}; p {tables.equals(found['p'])}"
        )
        said.append((differ, finding, grounds))
    return said


def settings(of_runs: Mapping[Any, dict[str, Any]]) -> dict[bool, dict[str, list[str]]]:
    """Settings by dotted name, a value per run: under True those that differ, under False not."""
    plain = {
        run: {key: str(value) for key, value in flat(tree).items()} for run, tree in of_runs.items()
    }
    names = dict.fromkeys(name for values in plain.values() for name in values)
    rows = {name: [values.get(name, "\N{EN DASH}") for values in plain.values()] for name in names}
    return {
        differ: {name: row for name, row in rows.items() if (len(set(row)) > 1) is differ}
        for differ in (True, False)
    }


def confused(confusion: list[list[int]], most: int = 3) -> list[tuple[int, int, int]]:
    """The commonest mistakes: true digit, what it is read as, how often."""
    wrong: Counts = np.array(confusion)
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = (divmod(int(place), len(wrong)) for place in order)
    return [
        (actual, read, int(wrong[actual, read])) for actual, read in pairs if wrong[actual, read]
    ]


def class_counts(statistics: dict[str, Any]) -> dict[str, list[int]]:
    """Images per digit in each split, as far as the report tells."""
    splits = {name: statistics.get(name, {}).get("digits") for name in NAMES}
    return {name: list(digits.values()) for name, digits in splits.items() if digits}


def digit_png(pixels: NDArray[np.uint8]) -> bytes:
    """The image as PNG, dark on bright as on paper."""
    file = BytesIO()
    Image.fromarray(255 - pixels).save(file, "PNG")
    return file.getvalue()


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"
