"""What is known of a run once it is trained and evaluated: read from the files that DVC tracks."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import PipelineError, paths
from pipeline.data.dataset import Labels
from pipeline.evaluation.metrics import Probabilities

CURVE_METRICS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate")

Curves = dict[str, list[float]]


@dataclass(frozen=True)
class Result:
    """One run.

    `metrics` is `metrics.json` of its evaluation, `model` is `model.json` of its bundle.
    `curves` holds `step` and each of `CURVE_METRICS`, one value per epoch.
    `probabilities` and `labels` belong to the test images.
    `mistakes` holds the arrays of `mistakes.npz`, the worst mistake first.
    `plots` holds the plots of the evaluation as SVG text, by name.
    """

    metrics: dict[str, Any]
    model: dict[str, Any]
    curves: Curves
    probabilities: Probabilities
    labels: Labels
    mistakes: dict[str, NDArray[Any]]
    plots: dict[str, str]

    @property
    def answers(self) -> NDArray[np.int64]:
        """(n,) the digit that each test image is read as."""
        answers: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return answers

    @property
    def right(self) -> NDArray[np.bool_]:
        """(n,) where the test image is read right."""
        right: NDArray[np.bool_] = self.answers == self.labels
        return right


def read(runs: Iterable[int], data: str, root: Path = Path()) -> dict[int, Result]:
    """The results of `runs` on the data set `data`, in the order of their numbers.

    They lie under `root` as they do in the repository.

    Raises:
        PipelineError: a run is not evaluated, or its evaluation is of another model or data set.
    """
    return {run: _read(run, data, root) for run in sorted(set(runs))}


def _read(run: int, data: str, root: Path) -> Result:
    again = f"python -m pipeline.evaluate run={run} data={data}"
    folder = root / paths.evaluation(run)
    try:
        metrics = json.loads((folder / "metrics.json").read_bytes())
        model = json.loads((root / paths.model(run) / "model.json").read_bytes())
        with np.load(folder / "predictions.npz", allow_pickle=False) as arrays:
            probabilities, labels = arrays["probabilities"], arrays["labels"]
        with np.load(folder / "mistakes.npz", allow_pickle=False) as arrays:
            mistakes = dict(arrays)
        plots = {path.stem: path.read_text() for path in sorted(folder.glob("*.svg"))}
        curves = _curves(root / paths.curves(run) / "plots" / "metrics")
    except FileNotFoundError as error:
        raise PipelineError(f"run {run}: {error.filename} is missing: {again}") from None
    if metrics["sha256"] != model["sha256"]:
        raise PipelineError(f"run {run} was trained anew after it was evaluated: {again}")
    if model["data"]["name"] != data:
        fix = f"python -m pipeline.train run={run} data={data}"
        raise PipelineError(f"run {run} was trained on {model['data']['name']}: {fix}")
    return Result(metrics, model, curves, probabilities, labels, mistakes, plots)


def _curves(folder: Path) -> Curves:
    """The columns of DVCLive's files, one file per metric."""
    curves: Curves = {}
    for metric in CURVE_METRICS:
        with (folder / f"{metric}.tsv").open(newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        curves["step"] = [int(row["step"]) for row in rows]
        curves[metric] = [float(row[metric]) for row in rows]
    return curves
