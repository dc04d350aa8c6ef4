"""Robustness: accuracy and calibration on corrupted test images. It is reported and never chooses.

The model is measured alone, on the corrupted pixels, and as served, after the service's
normalisation of the corrupted picture.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pipeline.data import as_served
from pipeline.data.dataset import Images, Labels, Split
from pipeline.evaluation import metrics
from pipeline.evaluation.metrics import Probabilities
from pipeline.robustness.corruptions import KINDS, corrupt

IMAGES = 200  # to normalise one takes a millisecond: with more, evaluation takes much longer
_SEED = 0  # the same corrupted images for each model


class Figures(NamedTuple):
    """Results on one kind of corruption, or their means over the kinds."""

    accuracy: float  # of the model alone
    ece: float
    served_accuracy: float  # an image in which no digit is found counts as misread
    served_ece: float  # of the images that are answered
    no_digit: float  # share of the images in which none is found


def measure(predict: Callable[[Images], Probabilities], test: Split, most: int) -> dict[str, Any]:
    """Return the figures by kind and their means, on `most` images, evenly from the test set.

    The ECE of few images is too high: compare it between models, not with that of all images.
    """
    count = min(most, len(test))
    chosen = np.arange(count) * len(test) // count
    images, labels = test.images[chosen], test.labels[chosen]
    kinds = {}
    for place, kind in enumerate(KINDS):
        corrupted = corrupt(images, kind, np.random.default_rng((_SEED, place)))
        kinds[kind] = _figures(predict, corrupted, labels)
    means = Figures(*np.mean(list(kinds.values()), axis=0).tolist())
    return {
        "images": count,
        "kinds": {kind: figures._asdict() for kind, figures in kinds.items()},
        "mean": means._asdict(),
    }


def _figures(predict: Callable[[Images], Probabilities], images: Images, labels: Labels) -> Figures:
    prepared, found = as_served.normalised(images)
    alone, served = predict(images), predict(prepared)[found]
    right = int((served.argmax(axis=1) == labels[found]).sum())
    return Figures(
        accuracy=metrics.accuracy(alone, labels),
        ece=metrics.calibration_error(metrics.reliability(alone, labels)),
        served_accuracy=right / len(labels),
        served_ece=metrics.calibration_error(metrics.reliability(served, labels[found])),
        no_digit=float(1 - found.mean()),
    )
