"""Build the answer for a 28x28 image from the model's outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve.models.loaded import Model

Answer = dict[str, Any]
Image = NDArray[np.uint8]  # (28, 28)
Floats = NDArray[np.float32]

CHUNK = 32  # images per model call: more is no faster and takes more memory


def infer(model: Model, images: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Return the probabilities, (n, 10), and the likelihoods, (n,), of (n, 28, 28) images."""
    predictor = model.predictor
    if len(images) <= CHUNK:
        return predictor.probabilities(images), predictor.likelihoods(images)
    parts = [infer(model, images[start : start + CHUNK]) for start in range(0, len(images), CHUNK)]
    probabilities, likelihoods = zip(*parts, strict=True)
    return np.concatenate(probabilities), np.concatenate(likelihoods)


def build_answer(
    probabilities: Floats,
    likelihood: np.float32,
    model: Model,
    request_id: str,
    confidence_threshold: np.float32,
) -> Answer:
    """Return the answer; `likelihood` is NaN (null in JSON) if the model has none."""
    digit = int(probabilities.argmax())
    confidence, detector = probabilities[digit], model.predictor.likelihood
    return {
        "prediction": digit,
        "confidence": confidence,
        "probabilities": probabilities,
        "uncertain": bool(confidence < confidence_threshold),
        "digit_likelihood": likelihood,
        "not_digit": detector is not None and bool(likelihood < detector.threshold),
        "model_version": model.version,
        "request_id": request_id,
    }
