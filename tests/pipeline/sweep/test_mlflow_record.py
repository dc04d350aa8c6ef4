import json
import os
import shutil
import subprocess
import sys

import pytest
from support import sweep_repo
from support.sweep_repo import jobs

from pipeline.config import CONF, environment
from pipeline.registry import live_runs, mlflow_runs, model_runs
from pipeline.sweep import job as sweep_job
from pipeline.sweep import mlflow_record
from pipeline.sweep.job import State
from pipeline.training.live_log import Training


@pytest.fixture
def repository(workspace, empty_store, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_store, workspace / "mlflow.db")
    return sweep_repo.Repository(workspace)


@pytest.fixture
def client(repository):
    return mlflow_runs.connect()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    with sweep_repo.inside(tmp_path_factory.mktemp("found")):
        return jobs("run=1,2", "epochs=9", "data=digits")


@pytest.fixture
def folder(repository):
    folder = repository.folder / "logs" / "sweeps" / "now"
    folder.mkdir(parents=True)
    return folder


def opened(client, found, folder, *typed):
    return mlflow_record.open_parent(client, found, list(typed or ["run=1,2", "epochs=9"]), folder)


def done(accuracy=0.9, loss=0.5, experiment="exp"):
    return State("done", 0.0, experiment=experiment, val_accuracy=accuracy, val_loss=loss)


FAILED = State("failed", 0.0, seconds=3.0, reason="ValueError: no")


def status(client, run):
    return client.get_run(run).info.status


def test_a_sweep_has_a_run_that_says_what_was_typed(client, found, folder):
    parent = client.get_run(opened(client, found, folder, "run=1,2", "name=my model"))
    assert parent.info.status == "RUNNING"
    assert parent.info.run_name == "sweep run=1,2 name=my model"
    assert parent.data.tags["command"] == "python train.py -m run=1,2 'name=my model'"
    assert client.get_experiment(parent.info.experiment_id).name == "digits"


def test_the_same_jobs_have_the_same_run_and_others_another(client, found, folder):
    first = opened(client, found, folder)
    mlflow_record.close_parent(client, first, [], interrupted=False)
    assert status(client, first) == "FINISHED"
    later = folder.with_name("later")
    assert opened(client, found, later) == first
    assert status(client, first) == "RUNNING"
    assert client.get_run(first).data.tags["sweep.folder"] == str(later)
    assert opened(client, jobs("run=1,2", "epochs=8", "data=digits"), folder) != first


@pytest.mark.parametrize(
    ("states", "interrupted", "ends"),
    [
        ([done(), FAILED], False, "FAILED"),
        ([FAILED, None], False, "FAILED"),
        ([done(), None], True, "KILLED"),
        ([None, None], True, "KILLED"),
        ([done(0.9, 0.2, "worse"), done(0.9, 0.1)], True, "FINISHED"),
    ],
)
def test_it_ends_as_its_jobs_did(client, found, folder, states, interrupted, ends):
    parent = opened(client, found, folder)
    outcomes = list(zip(found, states, strict=True))
    mlflow_record.close_parent(client, parent, outcomes, interrupted=interrupted)
    run = client.get_run(parent)
    assert run.info.status == ends
    expected = {"val_accuracy": 0.9, "val_loss": states[1].val_loss if ends == "FINISHED" else 0.5}
    finished = any(state and state.state == "done" for state in states)
    assert run.data.metrics == (expected if finished else {})
    assert run.data.tags.get("best") == ("exp" if finished else None)


@pytest.mark.parametrize(
    ("state", "ends", "error"),
    [(FAILED, "FAILED", "ValueError: no"), (State("stopped", 0.0), "KILLED", "stopped")],
)
@pytest.mark.parametrize("swept", [True, False])
def test_a_job_that_came_to_nothing_has_a_run_that_says_why(
    client, found, folder, state, ends, error, swept
):
    parent = opened(client, found, folder) if swept else None
    log = sweep_job.log_of(folder, found[1])
    mlflow_record.complete(client, found[1], state, parent, log)
    place = client.get_experiment_by_name("digits").experiment_id
    (child,) = (run for run in client.search_runs([place]) if run.info.run_id != parent)
    assert child.data.tags.get(mlflow_runs.PARENT) == parent
    assert child.info.status == ends
    assert child.info.run_name == "run-2-enhanced epochs=9 data=digits"
    assert child.data.tags["error"] == error
    assert child.data.tags["log"] == str(log)
    assert child.data.params == {"run": "2", "epochs": "9", "data": "digits"}


@pytest.fixture
def logged_again(monkeypatch):
    """Which jobs were given to `pipeline.track`."""
    given = []
    monkeypatch.setattr(
        sweep_job, "track", lambda job, made, parent: given.append((job.run, made.name, parent))
    )
    return given


@pytest.fixture
def experiment(repository):
    """The state of a job whose experiment has a model of the digest `abc`."""
    repository.experiment("exp", {"reports/tracked.json": json.dumps({"1": "abc"})})
    return done()


def known(client, status="FINISHED", **tags):
    place = mlflow_runs.experiment(client, "digits")
    run = client.create_run(place, tags={model_runs.DIGEST: "abc"} | tags)
    client.set_terminated(run.info.run_id, status)


def test_a_model_is_logged_unless_the_sweep_has_a_whole_run_of_it(
    client, found, folder, experiment, logged_again
):
    def complete(parent):
        mlflow_record.complete(client, found[0], experiment, parent, folder / "log")
        return [logged_again.pop()] if logged_again else []

    parent = opened(client, found, folder)
    under, whole = {mlflow_runs.PARENT: parent}, {model_runs.COMPLETE: "true"}
    for tags in (under, {"status": "FAILED", **under, **whole}):  # half-filled ones
        known(client, **tags)
        assert complete(parent) == [(1, "exp", parent)]
        assert complete(None) == [(1, "exp", None)]
    known(client, **whole)
    known(client, **whole, **{mlflow_runs.PARENT: "another sweep"})
    assert complete(None) == []
    assert complete(parent) == [(1, "exp", parent)]
    known(client, **under, **whole)
    assert complete(parent) == []


def holder(folder):
    """A process that holds the lock of a sweep."""
    code = (
        "import sys; from pathlib import Path; from pipeline.sweep import mlflow_record as record\n"
        f"with record.lock(Path({str(folder)!r})):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(CONF.parent)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"held\n"
    return process


def test_a_dead_sweep_is_marked_and_a_living_one_is_not(client, found, folder):
    living, gone = folder.with_name("living"), folder.with_name("gone")
    living.mkdir()
    process = holder(living)
    with process:
        alive = opened(client, found[:1], living, "alive")
        dead = opened(client, found[1:], folder, "dead")
        vanished = opened(client, found, gone, "vanished")
        assert sorted(mlflow_record.mark_dead(client)) == ["sweep dead", "sweep vanished"]
        assert status(client, alive) == "RUNNING"
        assert (status(client, dead), status(client, vanished)) == ("KILLED", "KILLED")
        assert mlflow_record.mark_dead(client) == []
        process.kill()
    assert mlflow_record.mark_dead(client) == ["sweep alive"]
    assert status(client, alive) == "KILLED"


def test_a_sweep_that_ends_while_its_lock_is_looked_at_stays_finished(
    client, found, folder, monkeypatch
):
    run = opened(client, found, folder)

    def ends(_):
        client.set_terminated(run)
        return False

    monkeypatch.setattr(mlflow_record, "is_locked", ends)
    assert mlflow_record.mark_dead(client) == []
    assert status(client, run) == "FINISHED"


def test_runs_that_may_be_under_way_elsewhere_are_not_marked(client, found, folder, monkeypatch):
    place = mlflow_runs.experiment(client, "digits")
    others = client.create_run(place).info.run_id
    half_filled = client.create_run(place, run_name="half", tags={model_runs.DIGEST: "abc"})
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(sweep_job, "HOST", "elsewhere")
        theirs = opened(client, found, folder)
    with monkeypatch.context() as served:  # where another machine may be filling the run
        served.setattr(environment, "artifact_location", lambda: None)
        assert mlflow_record.mark_dead(client) == []
    assert mlflow_record.mark_dead(client) == ["half"]
    assert status(client, half_filled.info.run_id) == "FAILED"
    assert (status(client, others), status(client, theirs)) == ("RUNNING", "RUNNING")


def test_a_job_that_failed_while_it_trained_has_the_run_that_showed_it(
    client, found, folder, monkeypatch
):
    parent, job = opened(client, found, folder), found[1]
    monkeypatch.setenv("SWEEP_PARENT", parent)
    monkeypatch.setenv("DVC_EXP_NAME", job.name)
    checkpoint = str(folder / "abc")
    training = Training(checkpoint, job.run, job.run_name, job.data, "ab" * 32, {"epochs": 9})
    shown = live_runs.start(client, training)
    mlflow_record.complete(client, job, FAILED, parent, folder / "log")
    run = client.get_run(shown)
    assert run.info.status == "FAILED"
    assert (run.data.tags["error"], run.data.tags["log"]) == ("ValueError: no", str(folder / "log"))
    assert len(client.search_runs([run.info.experiment_id])) == 2
