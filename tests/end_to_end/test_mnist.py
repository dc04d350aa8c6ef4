"""The promise of the README, on the real MNIST."""

import json
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROMISED = {"1": 0.980, "2": 0.985, "3": 0.990}


@pytest.fixture(scope="module")
def champion(module_clone):
    """A clone in which `dvc repro` and `register` ran; what this workspace has built is reused."""
    shared = ROOT.parent / "shared" / "mnist"
    if not shared.exists():
        pytest.skip("needs the files of MNIST in ../shared/mnist")
    clone = module_clone
    if (ROOT / ".dvc" / "cache").exists():
        shutil.copytree(ROOT / ".dvc" / "cache", clone.folder / ".dvc" / "cache")
    clone.run("dvc", "repro", MNIST_MIRROR=str(shared))
    clone.output = clone.run("python", "-m", "pipeline.register")
    return clone


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
