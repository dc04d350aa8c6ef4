"""Fields of files and names in MLflow that other programs read, against what the pipeline makes."""

import json
import re

import pytest
from documents import ROOT, document

from pipeline import gates, git, paths, register, registry, results, tracking

METRICS, COMPARISON = (
    json.loads(git.content("show", f"HEAD:{path}")) for path in (paths.METRICS, paths.COMPARISON)
)
OPTIONAL = {"feedback_accuracy"}  # with `data=mnist_feedback`


def described(what):
    """The names in the second cell of the row that begins so."""
    tables = document("docs/ML_PIPELINE.md").tables()
    rows = [row for _, table in tables if table[0][0] in ("file", "what") for row in table[1:]]
    (row,) = [row for row in rows if row[0].startswith(what)]
    return re.findall(r"`([^`]+)`", row[0].removeprefix(what) + row[1])


def texts(module):
    return set(re.findall(r'"([\w.]+)"', (ROOT / "pipeline" / f"{module}.py").read_text()))


def test_the_figures_of_the_best_run():
    assert set(described("`reports/metrics.json`")) - OPTIONAL == set(METRICS)


def test_the_comparison():
    told = {*described("`reports/metrics.json`"), *described("`reports/comparison.json`")}
    run = next(iter(COMPARISON["runs"].values()))
    pair, found = next(iter(COMPARISON["mcnemar"].items()))
    assert told - OPTIONAL == {*COMPARISON, *run, *found, pair}


def test_the_timings():
    told = set(described("`reports/timings.json`"))
    assert told - texts("evaluate") == {"train_seconds"}
    assert "train_seconds=" in (ROOT / "pipeline" / "train.py").read_text()


@pytest.mark.skipif(not (ROOT / paths.CHAMPION).exists(), reason="needs dvc repro")
def test_the_bundle():
    content = json.loads((ROOT / paths.CHAMPION / "model.json").read_bytes())
    inner = {key for name in ("input", "data", "likelihood", "reference") for key in content[name]}
    assert set(described("`model.json`")) - {"model.tflite"} == {*content, *inner}
    files = {path.name for path in (ROOT / paths.CHAMPION).iterdir()}
    assert set(described("`models/champion/`")) == {*files}


def test_the_runs_in_mlflow():
    names = {
        tracking.run_name(int(run), found["name"], "") for run, found in COMPARISON["runs"].items()
    }
    (example,) = described("runs")
    assert example in names
    assert described("metrics, each epoch") == list(results.METRICS)


def test_the_tags_of_a_run(monkeypatch):
    monkeypatch.setenv("DVC_EXP_NAME", "name")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "revision")
    data = {"name": "mnist", "sha256": ""}
    made = tracking._tags(1, {"settings": {"seed": 1, "threads": 1}, "data": data})
    made = {re.sub(r"^version\..*", "version.<library>", tag) for tag in made}
    assert set(described("tags of a run")) == {tracking.DIGEST, tracking.COMPLETE, *made}


def test_the_tags_of_a_version():
    data = {"name": "mnist"}
    made = set(register._tags({"run": 1, "name": "one", "data": data, "metrics": {}}))
    verdicts = register._verdicts([gates.Check("<gate>", True, "")])
    made |= {*verdicts, registry.BUNDLE, registry.LIKELIHOOD}
    made |= {registry.PROMOTED, registry.ROLLED_BACK, "feedback"}
    told = set(described("tags of a version of `mnist-classifier`")) - {"model.json"}
    assert told == made
    assert "feedback" in texts("register")
