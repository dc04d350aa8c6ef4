"""Results of a run that is trained and evaluated, read from the files that DVC tracks."""

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

# Commands that make what is missing.
TRAIN = "python -m pipeline.train run={run} data={data}"
EVALUATE = "python -m pipeline.evaluate run={run} data={data}"

Curves = dict[str, list[float]]


@dataclass(frozen=True)
class Result:
    """One run.

    `metrics` is `metrics.json` of its evaluation, `model` is `model.json` of its bundle.
    `curves` holds `step` and each of `CURVE_METRICS`, one value per epoch.
    `probabilities` and `labels` belong to the test images.
    `mistakes` holds the arrays of `mistakes.npz`, the worst mistake first.
    `plots` holds the plots of the evaluation as SVG text, by name.
    `corruptions` is `corruptions.json`, None for a run of before it was written.
    """

    metrics: dict[str, Any]
    model: dict[str, Any]
    curves: Curves
    probabilities: Probabilities
    labels: Labels
    mistakes: dict[str, NDArray[Any]]
    plots: dict[str, str]
    corruptions: dict[str, Any] | None = None

    @property
    def answers(self) -> NDArray[np.int64]:
        """The digit predicted for each test image, (n,)."""
        answers: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return answers

    @property
    def right(self) -> NDArray[np.bool_]:
        """Where the prediction is right, (n,)."""
        right: NDArray[np.bool_] = self.answers == self.labels
        return right


def read(runs: Iterable[int], data: str, root: Path = Path()) -> dict[int, Result]:
    """Return the results of `runs` on the data set `data`, in the order of their numbers.

    Under `root` they lie as they do in the repository. It is a PipelineError if a run is not
    evaluated, or its evaluation is of another model or data set.
    """
    return {run: _read(run, data, root) for run in sorted(set(runs))}


def _read(run: int, data: str, root: Path) -> Result:
    train, evaluate = (command.format(run=run, data=data) for command in (TRAIN, EVALUATE))
    folder = root / paths.evaluation(run)
    remedy = train
    try:
        model = json.loads((root / paths.model(run) / "model.json").read_bytes())
        curves = read_curves(root / paths.curves(run))
        remedy = evaluate
        metrics = json.loads((folder / "metrics.json").read_bytes())
        with np.load(folder / "predictions.npz", allow_pickle=False) as arrays:
            probabilities, labels = arrays["probabilities"], arrays["labels"]
        with np.load(folder / "mistakes.npz", allow_pickle=False) as arrays:
            mistakes = dict(arrays)
        file = folder / "corruptions.json"
        corruptions = json.loads(file.read_bytes()) if file.exists() else None
        plots = {path.stem: path.read_text() for path in sorted(folder.glob("*.svg"))}
    except FileNotFoundError as error:
        raise PipelineError(f"run {run}: {error.filename} is missing: {remedy}") from None
    if metrics["sha256"] != model["sha256"]:
        raise PipelineError(f"run {run} was trained again after it was evaluated: {evaluate}")
    if model["data"]["name"] != data:
        raise PipelineError(f"run {run} was trained on {model['data']['name']}: {train}")
    return Result(metrics, model, curves, probabilities, labels, mistakes, plots, corruptions)


def read_curves(folder: Path) -> Curves:
    """Return the columns of DVCLive's files in a run's `paths.curves`, one file per metric."""
    curves: Curves = {}
    for metric in CURVE_METRICS:
        with (folder / "plots" / "metrics" / f"{metric}.tsv").open(newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        curves["step"] = [int(row["step"]) for row in rows]
        curves[metric] = [float(row[metric]) for row in rows]
    return curves
