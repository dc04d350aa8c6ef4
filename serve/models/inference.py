"""Inference on any number of images, some at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serve.models.predictor import Predictor

Floats = NDArray[np.float32]

CHUNK = 32  # images per model call: more is no faster and takes more memory


def infer(predictor: Predictor, images: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Return the probabilities, (n, 10), and the likelihoods, (n,), of (n, 28, 28) images."""
    if len(images) <= CHUNK:
        return predictor.probabilities(images), predictor.likelihoods(images)
    starts = range(0, len(images), CHUNK)
    parts = [infer(predictor, images[start : start + CHUNK]) for start in starts]
    probabilities, likelihoods = zip(*parts, strict=True)
    return np.concatenate(probabilities), np.concatenate(likelihoods)
