"""Made-up candidates for comparisons: what a model answers is given, no model is needed."""

from itertools import count

import numpy as np

from pipeline.data.dataset import Split
from pipeline.evaluation.results import Result
from pipeline.reports.pairwise import Candidate

IMAGES = 100
LABELS = (np.arange(IMAGES) % 10).astype(np.uint8)
TEST = Split(np.zeros((IMAGES, 28, 28), np.uint8), LABELS, np.arange(IMAGES, dtype=np.int32))
CURVES = {
    "step": [1, 2, 3],
    "train_accuracy": [0.8, 0.9, 0.95],
    "val_accuracy": [0.85, 0.92, 0.93],
    "train_loss": [0.6, 0.3, 0.2],
    "val_loss": [0.5, 0.3, 0.25],
}
_NUMBERS = count()


def result(wrong=(), *, val=0.9, loss=0.3, shift=1, curves=CURVES, **model):
    """The result of a model that misreads the images `wrong`, each as the digit `shift` further."""
    answers = LABELS.copy()
    answers[list(wrong)] = (answers[list(wrong)] + shift) % 10
    probabilities = np.full((IMAGES, 10), 0.02, np.float32)
    probabilities[np.arange(IMAGES), answers] = 0.82
    description = {
        "sha256": model.get("sha") or f"model {next(_NUMBERS)}",
        "data": {"name": model.get("data", "mnist"), "sha256": model.get("split", "ab")},
        "settings": {"seed": model.get("seed", 42)},
        "run": model.get("run", 1),
    }
    metrics = {
        **{"name": "made-up", "val_accuracy": val, "val_loss": loss},
        **{"test_accuracy": 0.99, "wilson": (0.985, 0.993)},
    }
    return Result(metrics, description, curves, probabilities, LABELS, {}, {})


def candidate(wrong=(), *, name="it", test=TEST, **made):
    """An experiment with such a result."""
    return Candidate(name, result(wrong, **made), test=test)


def lettered(*curves):
    """Candidates A, B, … with these curves."""
    return [
        Candidate("it", result(curves=some), "ABCDEFGHIJKLM"[place], place, place + 1)
        for place, some in enumerate(curves)
    ]
