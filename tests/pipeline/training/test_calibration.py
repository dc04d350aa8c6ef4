import numpy as np
import pytest

from pipeline.evaluation.metrics import log_loss
from pipeline.training.calibration import fit_temperature
from serve.models.predictor import softmax


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_it_finds_the_temperature_that_the_labels_were_drawn_with(temperature):
    chance = np.random.default_rng(0)
    logits = chance.normal(0, 3, (20_000, 10)).astype(np.float32)
    probabilities = softmax(logits, temperature).astype(np.float64)
    cumulative = probabilities.cumsum(axis=1) / probabilities.sum(axis=1, keepdims=True)
    labels = (cumulative < chance.random((20_000, 1))).sum(axis=1).astype(np.uint8)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)


def test_it_never_makes_the_loss_worse():
    chance = np.random.default_rng(1)
    logits = chance.normal(0, 8, (500, 10)).astype(np.float32)
    labels = chance.integers(0, 10, 500).astype(np.uint8)
    fitted = fit_temperature(logits, labels)
    assert log_loss(softmax(logits, fitted), labels) <= log_loss(softmax(logits), labels)
    assert fitted == pytest.approx(4, abs=0.01)
