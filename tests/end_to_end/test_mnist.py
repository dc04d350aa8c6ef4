"""The promise of the README, on the real MNIST."""

import json

import numpy as np
import pytest

from pipeline.config import paths
from pipeline.data import dataset
from pipeline.evaluation import metrics
from pipeline.ood import examples
from serve.models.predictor import Predictor

PROMISED = {"1": 0.980, "2": 0.985, "3": 0.990}


@pytest.mark.slow
def test_every_run_reaches_its_accuracy(champion):
    runs = json.loads(champion.read("reports/comparison.json"))["runs"]
    reached = {run: figures["test_accuracy"] for run, figures in runs.items()}
    assert {run for run in PROMISED if reached[run] < PROMISED[run]} == set(), reached


@pytest.mark.slow
def test_the_best_run_is_the_champion(champion):
    assert "mnist-classifier version 1 is the champion." in champion.output
    assert "NO " not in champion.output
    described = json.loads(champion.read("models/champion/model.json"))
    assert described["run"] == json.loads(champion.read("reports/comparison.json"))["best"]


@pytest.mark.slow
def test_the_split_is_the_promised_one(champion):
    statistics = json.loads(champion.read("reports/data/statistics.json"))
    counts = [statistics[name]["count"] for name in ("train", "validation", "test")]
    assert counts == [54_000, 6_000, 10_000]


@pytest.mark.slow
def test_what_is_no_digit_is_told_from_digits(champion):
    """As it is served: the bundle's likelihood on images that the pipeline drew to judge with."""
    folder = champion.folder
    predictor = Predictor(folder / paths.CHAMPION)
    digits = predictor.likelihoods(dataset.load(folder / paths.processed("mnist"), "test").images)
    assert (digits < predictor.likelihood.threshold).mean() == pytest.approx(0.01, abs=0.005)
    with np.load(folder / paths.ood_examples("mnist")) as arrays:
        fresh = {kind: predictor.likelihoods(arrays[kind]) for kind in arrays.files}
    reached = {kind: metrics.auroc(digits, fresh[kind]) for kind in examples.KINDS}
    fitted = {kind: auroc for kind, auroc in reached.items() if kind not in examples.UNSEEN}
    assert min(fitted.values()) > 0.98, fitted
    assert min(reached.values()) > 0.96, reached
    refused = {k: (fresh[k] < predictor.likelihood.threshold).mean() for k in examples.DIGITS}
    assert max(refused.values()) < 0.05, refused
    assert json.loads(champion.read("reports/metrics.json"))["nondigit_auroc"] == pytest.approx(
        min(reached.values())
    )
