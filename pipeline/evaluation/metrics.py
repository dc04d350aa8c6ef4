"""Metrics of a classifier: accuracy, loss, calibration, confusion, AUROC; and the ranking by them.

`probabilities` are (n, classes) with rows that sum to 1, `labels` (n,) places of classes.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.data.dataset import Labels

Probabilities = NDArray[np.float32]
Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

BINS = 15


def accuracy(probabilities: Probabilities, labels: Labels) -> float:
    """Return the share of images whose most probable class is the true one."""
    return float((probabilities.argmax(axis=1) == labels).mean())


def log_loss(probabilities: Probabilities, labels: Labels) -> float:
    """Return the mean cross-entropy in nats; probability 0 counts as the smallest above 0."""
    of_truth = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(of_truth.clip(np.finfo(np.float32).tiny)).mean())


class Bins(NamedTuple):
    """Reliability bins: predictions by confidence, in equal steps; empty bins hold zeros."""

    images: Counts
    confidence: Floats  # mean of the bin's predictions
    accuracy: Floats  # share of them that is right


def reliability(probabilities: Probabilities, labels: Labels, bins: int = BINS) -> Bins:
    """Return accuracy by confidence; bin m holds confidences in ((m - 1) / bins, m / bins]."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    some = np.maximum(count, 1)
    return Bins(
        count,
        np.bincount(place, confidence, bins) / some,
        np.bincount(place, right, bins) / some,
    )


def calibration_error(bins: Bins) -> float:
    """Return the expected calibration error (ECE).

    It is the distance of confidence from accuracy, averaged over the predictions; 0 without any.
    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3.
    """
    gaps = np.abs(bins.accuracy - bins.confidence)
    return float((bins.images * gaps).sum() / max(bins.images.sum(), 1))


def confusion_matrix(labels: Labels, predicted: Labels, classes: int) -> Counts:
    """Return (classes, classes) image counts: the true class down, the predicted one across."""
    pairs = labels.astype(np.int64) * classes + predicted
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def recall(confusion: Counts) -> Floats:
    """Return the share of each class's images that is found; 0 for a class without images."""
    shares: Floats = confusion.diagonal() / np.maximum(confusion.sum(axis=1), 1)
    return shares


def precision(confusion: Counts) -> Floats:
    """Return the share of each class's predictions that is right; 0 for a class never predicted."""
    shares: Floats = confusion.diagonal() / np.maximum(confusion.sum(axis=0), 1)
    return shares


def auroc(positive: NDArray[np.float32], negative: NDArray[np.float32]) -> float:
    """Return the area under the ROC curve (Hanley and McNeil, Radiology 1982).

    It is the probability that a positive's score is above a negative's; equal ones count half.
    """
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left")
    not_above = np.searchsorted(ordered, positive, "right")
    return float((below + not_above).mean() / 2 / len(negative))


def validation_metrics(probabilities: Probabilities, labels: Labels) -> dict[str, float]:
    """Return the metrics that models are ranked by, under their names everywhere."""
    return {
        "val_accuracy": accuracy(probabilities, labels),
        "val_loss": log_loss(probabilities, labels),
    }


def rank(metrics: Mapping[str, Any], tie: int | str) -> tuple[float, float, Any]:
    """Return the sort key by which the best model comes first.

    The best has the highest validation accuracy, then the lower validation loss, then the lower
    `tie`: the run's number or the experiment's name. Test metrics take no part in the selection.
    """
    return -metrics["val_accuracy"], metrics["val_loss"], tie
