"""Real experiments, listed and compared as a user would."""

import re

import pytest


def run(clone, name, epochs):
    """An experiment of run 1 alone, named and with so many epochs."""
    settings = ("-S", "runs=[1]", "-S", f"conf/run/1.yaml:epochs={epochs}")
    clone.run("dvc", "exp", "run", "--temp", "--name", name, *settings)


@pytest.mark.slow
@pytest.mark.nightly
def test_real_experiments_are_listed_and_compared_with_their_baseline(clone):
    run(clone, "short", 1)
    run(clone, "long", 4)
    listed = clone.run("python", "-m", "pipeline.exps").splitlines()
    assert [line.split()[0] for line in listed[1:]] == ["main", "long", "short"]
    assert "epochs" in listed[0].split()

    said = clone.run("python", "-m", "pipeline.compare_experiments", "short", "long", "main")
    assert re.search(r"^A main +[23] ", said, re.MULTILINE)
    assert "A reads better than C: " in said
    page = clone.read("reports/experiments.html")
    assert "The best of 3 experiments reads" in page
    assert "Only A is right" in page
    assert clone.run("git", "status", "--porcelain") == ""
