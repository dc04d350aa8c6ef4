"""Judges one exported model on validation and test split: `python -m pipeline.evaluate run=3`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config, PipelineError, paths, stage
from pipeline.data import as_served, dataset
from pipeline.data.dataset import Split
from pipeline.evaluation import latency, metrics, significance
from pipeline.evaluation.metrics import Probabilities
from pipeline.ood import evaluation
from pipeline.reports import plots, theme
from pipeline.storage.files import replacing, write_arrays, write_json
from serve.models import drift_reference
from serve.models.predictor import BundleError, Predictor

logger = logging.getLogger(__name__)

_MISTAKES = 24


def main(cfg: Config) -> None:
    """Evaluates the model of `cfg.run` as it is served."""
    bundle, folder = paths.model(cfg.run), paths.evaluation(cfg.run)
    predictor = opened(bundle, cfg)
    likelihood, described, examples = evaluation.load(cfg.data.name)
    validation = as_served.load(paths.processed(cfg.data.name), "validation")
    test = as_served.load(paths.processed(cfg.data.name), "test")

    expected = predictor.probabilities(validation.images)
    probabilities = predictor.probabilities(test.images)
    figures = (
        identity(predictor.description, bundle)
        | metrics.validation_metrics(expected, validation.labels)
        | test_metrics(probabilities, test)
        | feedback_metrics(predictor, dataset.load_feedback(paths.processed(cfg.data.name)))
    )
    ood_scores = evaluation.scores(likelihood, test.images, examples)
    figures |= evaluation.metrics(ood_scores, described)
    worst = worst_mistakes(probabilities, test)

    write_arrays(folder / "predictions.npz", probabilities=probabilities, labels=test.labels)
    write_arrays(folder / "mistakes.npz", **worst)
    write_arrays(
        folder / drift_reference.FILE,
        **drift_reference.build(validation.images, expected)._asdict(),
    )
    write_pairs(folder / "confusion.csv", test.labels, probabilities.argmax(axis=1))
    draw(folder, cfg.run, probabilities, test, worst)
    theme.save(evaluation.plot(ood_scores, described["threshold"]), folder / "likelihood.png")
    write_json(folder / "metrics.json", figures)
    measure(cfg.run, predictor, test)
    misread = f"{figures['errors']:,} of {len(test):,} test images"
    logger.info("run %d (%s) misreads %s", cfg.run, cfg.name, misread)


def opened(bundle: Path, cfg: Config) -> Predictor:
    """The model of `bundle`, trained on the data of `cfg`.

    Raises:
        PipelineError: no usable model, or one of other data.
    """
    remedy = f"python -m pipeline.train run={cfg.run} data={cfg.data.name}"
    try:
        predictor = Predictor(bundle)
    except BundleError as error:
        raise PipelineError(f"{error}: {remedy}") from error
    trained_on = predictor.description["data"]["name"]
    if trained_on != cfg.data.name:
        raise PipelineError(f"{bundle} was trained on {trained_on}: {remedy}")
    return predictor


def identity(description: dict[str, Any], bundle: Path) -> dict[str, Any]:
    """Which model the figures are of, and what it weighs."""
    return {
        **{key: description[key] for key in ("run", "name", "sha256", "parameters")},
        "size_bytes": (bundle / "model.tflite").stat().st_size,
    }


def test_metrics(probabilities: Probabilities, split: Split) -> dict[str, Any]:
    """What is reported, and what a champion must reach; no choice is made by it."""
    confusion = metrics.confusion_matrix(split.labels, probabilities.argmax(axis=1))
    right, recall = int(confusion.trace()), metrics.recall(confusion)
    return {
        "test_accuracy": right / len(split),
        "test_loss": metrics.log_loss(probabilities, split.labels),
        "ece": metrics.calibration_error(metrics.reliability(probabilities, split.labels)),
        "min_recall": float(recall.min()),
        "test_images": len(split),
        "errors": len(split) - right,
        "wilson": significance.wilson(right, len(split)),
        "recall": recall.tolist(),
        "precision": metrics.precision(confusion).tolist(),
        "confusion": confusion.tolist(),
    }


def feedback_metrics(predictor: Predictor, held_out: Split | None) -> dict[str, Any]:
    """How many of the users' images that no model was trained on are read right; {} without any.

    They are as the service normalised them, so they are not normalised again.
    """
    if held_out is None:
        return {}
    right = predictor.probabilities(held_out.images).argmax(axis=1) == held_out.labels
    return {
        "feedback_accuracy": float(right.mean()),
        "feedback_images": len(held_out),
        "feedback_wilson": significance.wilson(int(right.sum()), len(held_out)),
    }


def worst_mistakes(probabilities: Probabilities, split: Split) -> dict[str, NDArray[Any]]:
    """Images read as the wrong digit, the surest first; `index` is `Split.index`."""
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != split.labels)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:_MISTAKES]
    return {
        "images": split.images[worst],
        "index": split.index[worst],
        "actual": split.labels[worst],
        "predicted": predicted[worst].astype(np.uint8),
        "confidence": confidence[worst],
    }


def write_pairs(path: Path, actual: dataset.Labels, predicted: NDArray[np.int64]) -> None:
    """Writes true and predicted digit of each image, as DVC's confusion template reads them."""
    rows = (f"{a},{p}\n" for a, p in zip(actual, predicted, strict=True))
    with replacing(path) as temporary:
        temporary.write_text("actual,predicted\n" + "".join(rows))


def draw(
    folder: Path,
    run: int,
    probabilities: Probabilities,
    test: Split,
    worst: dict[str, NDArray[Any]],
) -> None:
    """Draws what the run confuses, whether its confidence can be trusted, and where it fails."""
    confusion = metrics.confusion_matrix(test.labels, probabilities.argmax(axis=1))
    bins = metrics.reliability(probabilities, test.labels)
    pairs = zip(worst["actual"], worst["predicted"], worst["confidence"], strict=True)
    captions = [f"{a} → {p}  {confidence:.1%}" for a, p, confidence in pairs]
    for name, figure in (
        ("confusion", plots.confusion_matrix(confusion)),
        ("reliability", plots.reliability_diagram(bins, run)),
    ):
        theme.save(figure, folder / f"{name}.png", folder / f"{name}.svg")
    theme.save(plots.mistakes(worst["images"], captions), folder / "mistakes.png")


def measure(run: int, predictor: Predictor, test: Split) -> None:
    """Times the model and notes it where what differs each time belongs."""
    single = latency.latency(predictor.probabilities, test.images)
    batch = latency.latency(predictor.probabilities, test.images, batch=256, calls=40)
    names = ("latency_ms_p50", "latency_ms_p99", "batch_256_ms_p50", "batch_256_ms_p99")
    latency.record(run, **dict(zip(names, single + batch, strict=True)))


if __name__ == "__main__":
    stage(main)()
