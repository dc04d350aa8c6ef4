"""The threshold of an OOD score: a share of the validation images is below it."""

import numpy as np
from numpy.typing import NDArray

from serve.models.predictor import ENERGY, energy

BELOW_THRESHOLD = 0.01  # share of the validation images


def threshold_of(scores: NDArray[np.float32]) -> float:
    """Return the score that all but BELOW_THRESHOLD of the images reach, at most one half.

    What is more surely one of the classes than none is not flagged, however alike few validation
    images are.
    """
    return round(min(float(np.quantile(scores, BELOW_THRESHOLD)), 0.5), 6)


def fit_energy(logits: NDArray[np.float32]) -> dict[str, str | float]:
    """Return `likelihood` of `model.json` for a model with these logits of validation images.

    The score is one half at the energy that all but BELOW_THRESHOLD of them reach, and 0.98 at
    their median.
    """
    found = energy(logits).astype(np.float64)
    low, middle = np.quantile(found, [BELOW_THRESHOLD, 0.5]).tolist()
    scale = max((middle - low) / 4, 1e-3)  # a logistic function of 4 is 0.98
    return {"score": ENERGY, "threshold": 0.5, "offset": round(low, 6), "scale": round(scale, 6)}
