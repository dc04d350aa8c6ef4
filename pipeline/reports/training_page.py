"""The page of a training that is under way; the comparison takes its place."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import numpy as np

from pipeline.config import paths
from pipeline.evaluation import results
from pipeline.evaluation.results import Curves, Result
from pipeline.reports import html, plots, theme
from pipeline.reports.pairwise import Candidate
from pipeline.storage.files import write


def is_one(content: bytes) -> bool:
    """Return whether it is such a page, which a killed build may have left."""
    return b'http-equiv="refresh"' in content


def trained() -> dict[int, Curves]:
    """Return the curves of the runs that are on disk."""
    folders = {int(path.name): path for path in paths.CURVES.glob("*") if path.name.isdecimal()}
    whole = {run: folder for run, folder in folders.items() if (folder / "metrics.json").exists()}
    return {run: results.read_curves(whole[run]) for run in sorted(whole)}


def write_page(
    path: Path, run: int, name: str, epochs: int, curves: Mapping[int, Curves], *, ended: bool
) -> None:
    """Write the page, which loads itself again; `curves` of the runs include those of `run`."""
    nothing, wrong = np.empty((0, 10), np.float32), np.empty(0, np.uint8)
    candidates = [
        Candidate(str(n), Result({}, {}, one, nothing, wrong, {}, {}), f"run {n}", place, n)
        for place, (n, one) in enumerate(curves.items())
        if one["step"]
    ]
    content = {
        "run": run,
        "name": name,
        "epochs": epochs,
        "curves": curves,
        "ended": ended,
        "now": f"{datetime.now():%H:%M:%S}",
        "drawing_of_curves": theme.svg(plots.learning_curves(candidates, "accuracy", "loss")),
    }
    write(path, html.fill("training.html.j2", content))
