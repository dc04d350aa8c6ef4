"""From what users told to a model that learnt from it, on the real MNIST, by the one command."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.feedback_entries import database, entry

from pipeline.data import dataset
from pipeline.storage.idx import read_idx

MNIST = Path(__file__).parents[3] / "shared/mnist"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.nightly,
    pytest.mark.skipif(not MNIST.is_dir(), reason=f"no MNIST in {MNIST}"),
]


@pytest.fixture(scope="module")
def retrained(module_clone):
    """A clone in which run 1 was trained for one epoch, because its registry was empty."""
    clone = module_clone
    clone.pick("runs", "[1]")
    clone.edit("conf/run/1.yaml", "epochs: 5", "epochs: 1")
    clone.commit("small")
    clone.feedback = database(
        clone.folder.with_name("state") / "feedback.db", map(entry, range(200))
    )
    clone.output = clone.run(
        *("python", "-m", "pipeline.retrain", "--feedback", str(clone.feedback)),
        MNIST_MIRROR=str(MNIST),
    )
    return clone


def test_it_says_why_and_what_came_of_it(retrained):
    assert "due  the registry has no champion" in retrained.output
    assert "200 images: 200 confirmed, 0 corrected" in retrained.output
    assert "mnist-classifier version 1 is registered as challenger" in retrained.output
    assert "held-out images of feedback" in retrained.output


def test_accuracy_on_feedback_is_a_figure_of_its_own(retrained):
    metrics = json.loads(retrained.read("reports/metrics.json"))
    report = json.loads(retrained.read("reports/data/statistics.json"))
    assert metrics["test_accuracy"] > 0.95, "noise with labels must not spoil the digits"
    assert metrics["feedback_images"] == report["feedback"]["held_out"]
    assert report["feedback"]["train"] + report["feedback"]["held_out"] == 200
    assert report["train"]["count"] == 54_000 + report["feedback"]["train"]
    assert report["validation"]["count"] == 6_000


def test_the_test_images_are_those_of_mnist(retrained):
    split = dataset.load(retrained.folder / "data/processed/mnist_feedback.npz", "test")
    raw = retrained.folder / "data/raw/mnist_feedback/t10k-images-idx3-ubyte"
    np.testing.assert_array_equal(split.images, read_idx(raw.read_bytes(), raw.name))


def test_git_and_dvc_know_which_feedback_it_was(retrained):
    assert "up to date" in retrained.run("dvc", "status")
    changed = {
        line.split()[-1]
        for line in retrained.run("git", "status", "-s", "-uall").split("\n")
        if line
    }
    assert {
        "conf/data/mnist_feedback.yaml",
        "data/feedback.npz.dvc",
        "params.yaml",
        "dvc.lock",
        "reports/metrics.json",
    } <= changed
    assert "data/feedback.npz" not in changed


def export(clone, numbers):
    database(clone.feedback, map(entry, numbers))
    clone.run("python", "-m", "pipeline.feedback", str(clone.feedback))


def test_more_feedback_makes_its_own_data_due_and_no_other(retrained):
    export(retrained, range(200, 220))
    assert "conf/data/mnist_feedback.yaml" in retrained.run("dvc", "status", "fetch")
    retrained.edit("params.yaml", "data: mnist_feedback", "data: mnist")
    retrained.run("dvc", "repro", "preprocess", MNIST_MIRROR=str(MNIST))
    export(retrained, range(220, 240))
    assert "up to date" in retrained.run("dvc", "status", "fetch", "preprocess")
    assert "feedback" not in json.loads(retrained.read("reports/data/statistics.json"))
