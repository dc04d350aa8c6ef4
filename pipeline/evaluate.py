"""Evaluate an exported model on validation and test images: `python -m pipeline.evaluate run=3`."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config, PipelineError, paths, stage
from pipeline.data import dataset
from pipeline.data.dataset import Split
from pipeline.evaluation import label_errors, latency, metrics, significance
from pipeline.evaluation.metrics import Probabilities
from pipeline.ood import evaluation
from pipeline.reports import plots, theme
from pipeline.robustness import measures
from pipeline.storage.files import write_arrays, write_csv, write_json
from serve.models import drift_reference
from serve.models.predictor import FILES, FLOAT32, BundleError, Predictor, each_precision

logger = logging.getLogger(__name__)

_MISTAKES = 24  # three rows of eight


def main(cfg: Config) -> None:
    """Evaluate the model of `cfg.run` as it is served."""
    bundle, folder = paths.model(cfg.run), paths.evaluation(cfg.run)
    data = paths.processed(cfg.data.name)
    predictors = opened(bundle, cfg)
    predictor = predictors[0]
    validation, test = dataset.load(data, "validation"), dataset.load(data, "test")
    likelihood, described, examples = evaluation.load(cfg.data.name)
    score: evaluation.Score | None = likelihood
    if not score:
        score, described = evaluation.energy_of(predictor, validation.images)

    expected = predictor.probabilities(validation.images)
    answers = {each.precision: each.probabilities(test.images) for each in predictors}
    probabilities = answers[predictor.precision]
    # The corruptions are MNIST-C's, of digits bright on black.
    corrupted = corruptions(predictor, test) if cfg.data.digits else None
    ood_scores = evaluation.scores(score, test.images, examples)
    found = (
        identity(predictor.description, bundle)
        | metrics.validation_metrics(expected, validation.labels)
        | test_metrics(probabilities, test)
        | label_errors.metrics(probabilities, test)
        | feedback_metrics(predictor, dataset.load_feedback(data))
        | {f"corrupted_{name}": v for name, v in (corrupted or {"mean": {}})["mean"].items()}
        | evaluation.metrics(ood_scores, described)
        | {"by_precision": by_precision(bundle, answers, test)}
    )
    worst = worst_mistakes(probabilities, test)
    reference = drift_reference.build(validation.images, expected)

    write_arrays(folder / "predictions.npz", probabilities=probabilities, labels=test.labels)
    write_arrays(folder / "mistakes.npz", **worst)
    write_arrays(folder / drift_reference.FILE, **reference._asdict())
    pairs = zip(test.labels, probabilities.argmax(axis=1), strict=True)
    write_csv(folder / "confusion.csv", ("actual", "predicted"), pairs)
    draw(folder, cfg, probabilities, test, worst)
    theme.save(evaluation.plot(ood_scores, described["threshold"]), folder / "likelihood.png")
    (folder / "corruptions.json").unlink(missing_ok=True)  # of another data set
    if corrupted:
        write_json(folder / "corruptions.json", corrupted)
    write_json(folder / "metrics.json", found)
    measure(cfg.run, predictors, test)
    misread = f"{found['errors']:,} of {len(test):,} test images"
    logger.info("run %d (%s) misreads %s", cfg.run, cfg.name, misread)


def corruptions(predictor: Predictor, test: Split) -> dict[str, Any]:
    """Return how well the model reads corrupted digits."""
    return measures.measure(predictor.probabilities, test, measures.IMAGES)


def opened(bundle: Path, cfg: Config) -> list[Predictor]:
    """Return the models of `bundle`, the one that is served by default first.

    It is a PipelineError unless they are usable and of the data of `cfg`.
    """
    remedy = f"python -m pipeline.train run={cfg.run} data={cfg.data.name}"
    try:
        predictors = each_precision(bundle)
    except BundleError as error:
        raise PipelineError(f"{error}: {remedy}") from error
    trained_on = predictors[0].description["data"]["name"]
    if trained_on != cfg.data.name:
        raise PipelineError(f"{bundle} was trained on {trained_on}: {remedy}")
    return predictors


def identity(description: dict[str, Any], bundle: Path) -> dict[str, Any]:
    """Return which model the metrics are of, and its size."""
    return {
        **{key: description[key] for key in ("run", "name", "sha256", "parameters")},
        "size_bytes": (bundle / "model.tflite").stat().st_size,
    }


def test_metrics(probabilities: Probabilities, split: Split) -> dict[str, Any]:
    """Return the metrics for the report and the promotion gates; model selection ignores them."""
    classes = probabilities.shape[1]
    confusion = metrics.confusion_matrix(split.labels, probabilities.argmax(axis=1), classes)
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


def by_precision(
    bundle: Path, answers: dict[str, Probabilities], split: Split
) -> dict[str, dict[str, Any]]:
    """Return how well each model file of the bundle reads the test images, and its size."""
    tested = {precision: test_metrics(found, split) for precision, found in answers.items()}
    names = ("test_accuracy", "test_loss", "ece", "min_recall")
    return {
        precision: {
            **{name: found[name] for name in names},
            "size_bytes": (bundle / FILES[precision]).stat().st_size,
        }
        for precision, found in tested.items()
    }


def feedback_metrics(predictor: Predictor, held_out: Split | None) -> dict[str, Any]:
    """Return the accuracy on users' images that no model was trained on; {} if there are none.

    The service normalised them already, so they are not normalised again.
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
    """Return the misread images, the highest confidence first; `index` is `Split.index`."""
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


def draw(
    folder: Path,
    cfg: Config,
    probabilities: Probabilities,
    test: Split,
    worst: dict[str, NDArray[Any]],
) -> None:
    """Draw confusion matrix, reliability diagram and worst mistakes."""
    run, classes = cfg.run, cfg.data.classes
    noun = theme.noun(classes, cfg.data.preparation.value)
    predicted = probabilities.argmax(axis=1)
    confusion = metrics.confusion_matrix(test.labels, predicted, len(classes))
    matrix = plots.confusion_matrix(confusion, classes, noun)
    reliability = plots.reliability_diagram(metrics.reliability(probabilities, test.labels), run)
    pairs = zip(worst["actual"], worst["predicted"], worst["confidence"], strict=True)
    captions = [f"{classes[a]} → {classes[p]}  {confidence:.1%}" for a, p, confidence in pairs]
    theme.save(matrix, folder / "confusion.png", folder / "confusion.svg")
    theme.save(reliability, folder / "reliability.png")
    theme.save(plots.mistakes(worst["images"], captions, noun), folder / "mistakes.png")


def measure(run: int, predictors: list[Predictor], test: Split) -> None:
    """Record the latencies, apart from the metrics, which are the same each time."""
    names = ("latency_ms_p50", "latency_ms_p99", "batch_256_ms_p50", "batch_256_ms_p99")
    for predictor in predictors:
        single = latency.latency(predictor.probabilities, test.images)
        batch = latency.latency(predictor.probabilities, test.images, batch=256, calls=40)
        prefix = "" if predictor.precision == FLOAT32 else f"{predictor.precision}_"
        latency.record(run, **dict(zip([prefix + n for n in names], single + batch, strict=True)))


if __name__ == "__main__":
    stage(main)()
