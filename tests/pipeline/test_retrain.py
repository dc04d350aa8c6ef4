"""`python -m pipeline.retrain`: it acts when there is a reason, and in the right order."""

import json
import shutil
import sys
from datetime import UTC, datetime

import numpy as np
import pytest
from mlflow.entities.model_registry import ModelVersion
from support.feedback_entries import database, entry, noise

from pipeline import retrain
from pipeline.config import PipelineError
from pipeline.registry import gates, mlflow_runs
from pipeline.registry.versions import CHAMPION
from pipeline.storage.idx import write_idx


@pytest.fixture
def steps(workspace, monkeypatch):
    """What it would run, instead of running it."""
    ran = []
    monkeypatch.setattr(retrain, "run", lambda *command: ran.append(command))
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return ran


@pytest.fixture
def champion(steps, workspace, empty_store):
    """Version 1, new."""
    shutil.copy(empty_store, workspace)
    client, model = mlflow_runs.connect(), gates.rules("mnist").model
    client.create_registered_model(model)
    client.create_model_version(model, (workspace / "bundle").as_uri())
    client.set_registered_model_alias(model, CHAMPION, "1")


PIPELINE = [("dvc", "repro"), ("python", "-m", "pipeline.register")]


def picked(workspace):
    (line,) = (x for x in (workspace / "params.yaml").read_text().splitlines() if "data:" in x)
    return line.split()[1]


def said(caplog, *arguments):
    caplog.clear()
    caplog.set_level("INFO")
    retrain.main([str(argument) for argument in arguments])
    return caplog.text


def test_without_a_reason_nothing_runs(champion, steps, caplog):
    assert "no reason to train" in said(caplog)
    assert steps == []


def test_without_a_champion_the_pipeline_runs(steps, workspace, caplog):
    assert "due  the registry has no champion" in said(caplog)
    assert steps == PIPELINE
    assert picked(workspace) == "mnist"


def drifted(workspace):
    """The report of the drift job on the champion, just now."""
    about = {"drift": True, "model_version": "1", "checked": datetime.now(UTC).isoformat()}
    (workspace / "drift.json").write_text(json.dumps(about))


def test_drift_alone_trains_on_what_is_picked_and_says_what_that_means(
    champion, steps, workspace, caplog
):
    drifted(workspace)
    text = said(caplog, "--drift", "drift.json")
    assert "due  drift.json says drift" in text
    assert "0 images of feedback, 100 wanted" in text
    assert "the same model" in text
    assert steps == PIPELINE
    assert picked(workspace) == "mnist"


def test_wrong_answers_are_exported_and_trained_on(champion, steps, workspace, caplog):
    wrong = [entry(n, prediction=(n + 1) % 10) for n in range(60)]
    one = database(workspace / "1.db", wrong + [entry(n) for n in range(60, 100)])
    other = database(workspace / "2.db", [entry(n) for n in range(100, 110)])
    text = said(caplog, "--feedback", "1.db", "2.db")
    assert "due  version 1 was right in 50 of 110 (45.5%)" in text
    export = ("python", "-m", "pipeline.feedback", str(one), str(other))
    assert steps == [("dvc", "repro", "fetch"), export, *PIPELINE]
    assert picked(workspace) == "mnist_feedback"
    before = (workspace / "params.yaml").read_text()
    assert "now has data" not in said(caplog, "--feedback", "1.db", "2.db")
    assert (workspace / "params.yaml").read_text() == before


def test_images_that_mnist_has_do_not_count(champion, steps, workspace, caplog):
    wrong = [entry(n, prediction=(n + 1) % 10) for n in range(110)]
    database(workspace / "1.db", wrong)
    raw = workspace / "data/raw/mnist/t10k-images-idx3-ubyte"
    raw.parent.mkdir(parents=True)
    raw.write_bytes(write_idx(np.stack([noise(n) for n in range(11)])))
    text = said(caplog, "--feedback", "1.db")
    assert "99 images of feedback, 100 wanted (conf/data/mnist_feedback.yaml; 11 that" in text
    assert steps == PIPELINE
    assert picked(workspace) == "mnist"
    database(workspace / "1.db", [entry(111)])
    said(caplog, "--feedback", "1.db")
    assert steps[2][:3] == ("python", "-m", "pipeline.feedback")


def test_mnist_is_fetched_before_its_images_are_told_from_new_ones(
    champion, steps, workspace, caplog, monkeypatch
):
    database(workspace / "1.db", [entry(n, prediction=(n + 1) % 10) for n in range(110)])
    assert "A new model is due" in said(caplog, "--feedback", "1.db", "--check")
    assert steps == []

    def run(*command):
        steps.append(command)
        if command[-1] == "fetch":
            raw = workspace / "data/raw/mnist/t10k-images-idx3-ubyte"
            raw.parent.mkdir(parents=True)
            raw.write_bytes(write_idx(np.stack([noise(n) for n in range(110)])))

    monkeypatch.setattr(retrain, "run", run)
    assert "0 images of feedback, 100 wanted" in said(caplog, "--feedback", "1.db")
    assert steps == [("dvc", "repro", "fetch"), *PIPELINE]


def test_a_check_runs_nothing_and_makes_no_store(steps, workspace, caplog):
    assert "A new model is due" in said(caplog, "--check")
    assert steps == []
    assert picked(workspace) == "mnist"
    assert not (workspace / "mlflow.db").exists()


def test_no_feedback_yet_is_no_error_but_a_wrong_folder_is(champion, steps, workspace, caplog):
    assert "no feedback yet" in said(caplog, "--feedback", "feedback.db")
    with pytest.raises(PipelineError, match="there is no folder"):
        said(caplog, "--feedback", workspace / "elsewhere" / "feedback.db")


def test_a_step_that_fails_ends_it_with_its_name(workspace):
    retrain.run(sys.executable, "-c", "")
    with pytest.raises(PipelineError, match=r"raise SystemExit\(3\)'` failed with exit code 3"):
        retrain.run(sys.executable, "-c", "raise SystemExit(3)")


def test_a_champion_that_learnt_from_feedback_is_not_replaced_without(
    champion, steps, workspace, caplog
):
    mlflow_runs.connect().set_model_version_tag(
        gates.rules("mnist").model, "1", "data", "mnist_feedback"
    )
    drifted(workspace)
    assert "no model is trained without" in said(caplog, "--drift", "drift.json")
    assert steps == []


def test_only_feedback_given_since_is_news():
    registered = datetime(2026, 6, 30, 12, tzinfo=UTC)
    version = ModelVersion("digits", "1", int(registered.timestamp() * 1000))
    version.tags["data"] = "mnist_feedback"
    before, then = (
        entry(1)._replace(given_at=at)
        for at in ("2026-06-30T11:59:59+00:00", "2026-06-30T12:00:00+00:00")
    )
    assert not retrain.has_news(version, [before], "mnist_feedback")
    assert retrain.has_news(version, [before, then], "mnist_feedback")
    assert retrain.has_news(version, [], "mnist")


@pytest.mark.parametrize("failing", ["pipeline.feedback", "repro"])
def test_what_a_failure_leaves_is_what_was(champion, workspace, monkeypatch, failing):
    database(workspace / "1.db", [entry(n, prediction=(n + 1) % 10) for n in range(110)])
    conf = workspace / "conf/data/mnist_feedback.yaml"
    conf.parent.mkdir(parents=True)
    conf.write_text("before")
    params = (workspace / "params.yaml").read_text()

    def run(*command):
        if "pipeline.feedback" in command:
            conf.write_text("after")
            (workspace / "data").mkdir()
            (workspace / "data/feedback.npz").write_bytes(b"export")
        if failing in command:
            raise PipelineError("failed")

    monkeypatch.setattr(retrain, "run", run)
    with pytest.raises(PipelineError, match="failed"):
        retrain.main(["--feedback", "1.db"])
    assert conf.read_text() == "before"
    assert (workspace / "params.yaml").read_text() == params
    assert not (workspace / "data/feedback.npz").exists()
