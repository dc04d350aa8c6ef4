"""Without any place that has MNIST."""

import time

import pytest
import yaml

DEAD = "http://127.0.0.1:9"  # the discard port: refused at once


def test_the_error_names_every_place_and_the_way_out(empty_clone):
    started = time.monotonic()
    output = empty_clone.run("dvc", "repro", fails=True, HTTPS_PROXY=DEAD, HTTP_PROXY=DEAD)
    assert time.monotonic() - started < 60
    for mirror in yaml.safe_load(empty_clone.read("conf/data/mnist.yaml"))["mirrors"]:
        assert mirror in output
    assert "MNIST_MIRROR" in output
    assert "make demo" in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_the_demo_needs_none_and_leaves_the_workspace_alone(empty_clone):
    """The commands of `make demo`, with few epochs."""
    output = empty_clone.run(
        *("dvc", "exp", "run", "--temp", "--name", "demo", "-S", "data=digits"),
        HTTPS_PROXY=DEAD,
        HTTP_PROXY=DEAD,
    )
    assert "Ran experiment(s): demo" in output
    empty_clone.run(
        *("dvc", "get", "--quiet", ".", "models/champion", "--rev", "demo"),
        *("--out", ".demo/champion"),
    )
    names = {path.name for path in (empty_clone.folder / ".demo/champion").iterdir()}
    files = {"model.tflite", "likelihood.tflite", "model.json", "README.md", "reference.npz"}
    assert names == files
    assert empty_clone.run("git", "status", "--porcelain") == ""
