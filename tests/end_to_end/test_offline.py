"""Without any place that has MNIST; `.ci/run` has `make demo` without a network."""

import time

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
