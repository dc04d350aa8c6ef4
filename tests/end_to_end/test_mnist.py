"""The promise of the README, on the real MNIST."""

import json

import pytest

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
