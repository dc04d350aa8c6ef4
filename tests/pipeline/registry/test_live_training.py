"""A training in MLflow while it runs, and how its run ends; MLflow and the processes are real."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from support.mlflow_registry import await_server, server
from support.processes import until

from pipeline.config import CONF, paths
from pipeline.evaluation.results import CURVE_METRICS
from pipeline.registry import live_runs, live_training, mlflow_runs, model_runs
from pipeline.training import live_log as training_log
from pipeline.training.checkpoints import claimed
from pipeline.training.live_log import Training, live_log

# Enough epochs to be ended among them, on any machine.
COMMAND = ["run=1", "epochs=100000", "batch_size=32", "model.filters=4"]


@pytest.fixture
def store(workspace, empty_store, monkeypatch):
    """An empty store in the workspace, where trainings are live."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("LIVE_LOG", "1")
    monkeypatch.setenv("PYTHONPATH", str(CONF.parent))
    monkeypatch.setattr(training_log, "PATIENCE", 300)  # on a busy machine imports take long
    shutil.copy(empty_store, workspace / "mlflow.db")
    return workspace


def some_training(folder, **changed):
    checkpoint = str(folder / ".checkpoints" / "abc")
    settings = {"seed": 42, "optimizer": {"name": "adam", "learning_rate": 0.001}}
    return replace(Training(checkpoint, 3, "optimized", "mnist", "ab" * 32, settings), **changed)


def message(kind, **content):
    return json.dumps([kind, content])


def start(training):
    return message("start", **vars(training))


def epoch(step, loss=0.5):
    return message("epoch", step=step, time=1000 * step, metrics=dict.fromkeys(CURVE_METRICS, loss))


END = message("end", status="FINISHED", error="")


def follow(*lines):
    live_training.Follower().follow(lines)


def all_runs():
    client = mlflow_runs.connect()
    places = [place.experiment_id for place in client.search_experiments()]
    return client.search_runs(places)


def only_run():
    (run,) = all_runs()
    return run


def steps(run):
    history = mlflow_runs.connect().get_metric_history(run.info.run_id, "val_loss")
    return [metric.step for metric in history]


def begin(folder):
    """A training that a shell started."""
    with (folder / "output").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline.train", *COMMAND], stdout=output, stderr=output
        )


def trained_beyond(training, known):
    """The one run, once it has more epochs than were known."""

    def found():
        assert training.poll() is None
        runs = all_runs()
        return runs[0] if runs and len(steps(runs[0])) > known else None

    return until(found, "an epoch in MLflow")


def ended(run):
    client = mlflow_runs.connect()
    return until(
        lambda: (
            found if (found := client.get_run(run.info.run_id)).info.status != "RUNNING" else None
        ),
        "the end of the run",
    )


def test_epochs_are_seen_while_it_trains_and_a_kill_is_noticed(built, store):
    shutil.copytree(built / "data", store / "data")
    os.chdir(store)
    training = begin(store)
    try:
        run = trained_beyond(training, 1)
        assert run.info.status == "RUNNING"
        assert run.info.run_name == "run-1-baseline"
        assert run.data.params["epochs"] == "100000"
        assert {"train_loss", "val_accuracy", "learning_rate"} <= run.data.metrics.keys()
    finally:
        training.kill()
        training.wait()
    run = ended(run)
    assert (run.info.status, run.data.tags["error"]) == ("KILLED", "the training was killed")


@pytest.mark.slow
@pytest.mark.nightly
def test_the_next_training_takes_the_run_of_a_killed_one_up(built, store):
    shutil.copytree(built / "data", store / "data")
    os.chdir(store)
    known, run = 0, None
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        training = begin(store)
        try:
            run = trained_beyond(training, known)
            assert run.info.status == "RUNNING"
            assert "error" not in run.data.tags
            training.send_signal(number)
            training.wait(60)
        finally:
            training.kill()
        run = ended(run)
        assert run.info.status == "KILLED"
        known = len(steps(run))
        assert sorted(steps(run)) == list(range(1, known + 1))
    assert only_run().info.run_id == run.info.run_id


def test_a_training_that_fails_says_why(store):
    def fail():
        with live_log() as log:
            log.start(some_training(store))
            log.log(1, {"val_loss": 0.5})
            raise ValueError("no such layer")

    with pytest.raises(ValueError, match="no such layer"):
        fail()
    run = only_run()
    assert (run.info.status, run.data.tags["error"]) == ("FAILED", "ValueError: no such layer")
    assert run.data.metrics == {"val_loss": 0.5}


def test_a_training_that_waits_for_another_has_no_run_yet(store):
    with live_log():
        pass
    assert all_runs() == []


def test_of_a_resumed_training_each_epoch_is_there_once(store):
    training = some_training(store)
    follow(start(training), epoch(1), epoch(2))
    assert (only_run().info.status, steps(only_run())) == ("KILLED", [1, 2])
    follow(start(training), epoch(1), epoch(2), epoch(3), END)
    run = only_run()
    assert (run.info.status, steps(run)) == ("FINISHED", [1, 2, 3])
    assert "error" not in run.data.tags


def test_another_training_has_another_run(store, monkeypatch):
    client, training = mlflow_runs.connect(), some_training(store)
    follow(start(training), epoch(1))
    follow(start(some_training(store, checkpoint=str(store / ".checkpoints" / "def"))), epoch(1))
    follow(start(training), epoch(1), END)
    follow(start(training), epoch(1))  # the one before is finished
    monkeypatch.setenv("SWEEP_PARENT", client.create_run("1").info.run_id)
    monkeypatch.setenv("SWEEP_LABEL", "epochs=4")
    follow(start(training), epoch(1), epoch(2))
    names = sorted(run.info.run_name for run in all_runs() if steps(run))
    assert names == [*["run-3-optimized"] * 3, "run-3-optimized epochs=4"]


@pytest.mark.parametrize("status", ["RUNNING", "FAILED", "KILLED"])
def test_a_run_of_another_machine_is_left_alone(store, monkeypatch, status):
    client, training = mlflow_runs.connect(), some_training(store)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(socket, "gethostname", lambda: "elsewhere")
        theirs = live_runs.start(client, training)
        client.update_run(theirs, status)
    mine = live_runs.start(client, training)
    assert mine != theirs
    assert live_runs.start(client, training) == mine  # its process is dead: we have the checkpoint
    assert live_runs.mark_dead(client) == ["run-3-optimized"]
    assert client.get_run(theirs).info.status == status


def test_what_a_crash_of_the_machine_left_running_is_marked(store):
    client, training = mlflow_runs.connect(), some_training(store)
    run = live_runs.start(client, training)
    code = (
        "import sys; from pathlib import Path; from pipeline.training import checkpoints\n"
        f"with checkpoints.claimed(Path({training.checkpoint!r})):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        assert model_runs.mark_dead(client) == []
        holder.kill()
    assert model_runs.mark_dead(client) == ["run-3-optimized"]
    assert client.get_run(run).info.status == "KILLED"


def test_a_training_that_ends_while_its_lock_is_looked_at_stays_finished(store, monkeypatch):
    client = mlflow_runs.connect()
    run = live_runs.start(client, some_training(store))

    def ends(_):
        client.set_terminated(run)
        return False

    monkeypatch.setattr(live_runs, "is_locked", ends)
    assert live_runs.mark_dead(client) == []
    assert client.get_run(run).info.status == "FINISHED"


def shown(folder, run, *, until_epoch=None, sha256=None):
    """Shows the training of a run that is on disk, or its start."""
    about = json.loads((paths.model(run) / "model.json").read_bytes())
    data = about["data"]
    digest = sha256 or data["sha256"]
    checkpoint = str(folder / ".checkpoints" / f"{run}")
    training = Training(checkpoint, run, about["name"], data["name"], digest, about["settings"])
    epochs = {}
    for name, step, value in model_runs.epochs(run):
        epochs.setdefault(step, {})[name] = value
    lines = [
        message("epoch", step=step, time=1000 * step, metrics=metrics)
        for step, metrics in list(epochs.items())[:until_epoch]
    ]
    follow(start(training), *lines, *([] if until_epoch else [END]))
    return all_runs()[0]


@pytest.mark.parametrize("until_epoch", [None, 1])
def test_track_completes_the_run_that_showed_the_training(stored, until_epoch):
    client = mlflow_runs.connect()
    live = shown(stored, 3, until_epoch=until_epoch)
    run = model_runs.ensure_tracked(client, 3)
    assert run.info.run_id == live.info.run_id
    assert (run.info.status, run.info.run_name) == ("FINISHED", "run-3-optimized")
    assert not {live_runs.CHECKPOINT, "error"} & run.data.tags.keys()
    expected = sorted(model_runs.epochs(3))
    history = [
        (name, metric.step, metric.value)
        for name in CURVE_METRICS
        for metric in client.get_metric_history(run.info.run_id, name)
    ]
    last = max(step for _, step, _ in expected)
    assert sorted(point for point in history if point[1] <= last) == expected
    assert run.data.metrics["test_accuracy"]
    assert run.data.params["run"] == "3"
    assert model_runs.ensure_tracked(client, 3).info.run_id == run.info.run_id
    assert len(all_runs()) == 1


def test_track_leaves_what_showed_another_training(stored):
    client = mlflow_runs.connect()
    others = {shown(stored, 1).info.run_id, shown(stored, 3, sha256="other data").info.run_id}
    run = model_runs.ensure_tracked(client, 3)
    assert run.info.run_id not in others
    assert others < {run.info.run_id for run in all_runs()}


def test_a_model_that_is_trained_again_has_one_run_in_the_end(stored):
    client = mlflow_runs.connect()
    first = model_runs.ensure_tracked(client, 3)
    again = shown(stored, 3)
    assert len(all_runs()) == 2
    assert model_runs.ensure_tracked(client, 3).info.run_id == first.info.run_id
    assert only_run().info.run_id == first.info.run_id
    assert client.get_run(again.info.run_id).info.lifecycle_stage == "deleted"


def test_another_machine_trains_the_same_model_and_keeps_its_run(stored, monkeypatch):
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(socket, "gethostname", lambda: "elsewhere")
        theirs = shown(stored, 3)
    run = model_runs.ensure_tracked(mlflow_runs.connect(), 3)
    assert {run.info.run_id, theirs.info.run_id} == {run.info.run_id for run in all_runs()}


def test_a_whole_run_is_not_ended_by_a_training_that_took_it_up(stored):
    def lines():
        yield start(some_training(stored))
        yield epoch(1)
        live_runs.close(mlflow_runs.connect(), only_run())
        mlflow_runs.connect().set_terminated(only_run().info.run_id)

    live_training.Follower().follow(lines())
    assert only_run().info.status == "FINISHED"
    assert "error" not in only_run().data.tags


def test_trainings_at_once_do_not_lock_the_store_for_each_other(store):
    def follow_one(place):
        training = some_training(store, checkpoint=str(store / ".checkpoints" / str(place)))
        lines = [start(training), *(epoch(step) for step in range(1, 31)), END]
        with claimed(Path(training.checkpoint)):
            return subprocess.run(
                [sys.executable, "-m", "pipeline.registry.live_training"],
                input="\n".join(lines),
                capture_output=True,
                text=True,
                check=False,
            )

    with ThreadPoolExecutor() as pool:
        done = list(pool.map(follow_one, range(4)))
    assert [(one.returncode, one.stdout, one.stderr) for one in done] == [(0, "", "")] * 4
    runs = all_runs()
    assert [(run.info.status, steps(run)) for run in runs] == [("FINISHED", [*range(1, 31)])] * 4


def test_a_server_that_is_away_is_named_once(store, monkeypatch, capfd):
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    with live_log() as log:
        log.start(some_training(store))
        for number in range(5):
            log.log(number, {"val_loss": 0.5})
    (said,) = capfd.readouterr().out.splitlines()
    assert said.startswith("not shown in MLflow while it trains, only afterwards: MLflow: API")


def test_a_server_that_never_answers_holds_nothing_up(store, monkeypatch):
    monkeypatch.setattr(training_log, "PATIENCE", 1)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with live_log() as log:
            log.start(some_training(store))
            for number in range(5000):  # more than a pipe holds
                log.log(number, {"val_loss": 0.5})
            assert log.process.poll() is None
    assert log.process.returncode == -signal.SIGKILL


def test_a_store_that_comes_back_gets_what_it_missed(store, monkeypatch, caplog):
    monkeypatch.setattr(live_training, "_RETRY", 0.0)
    database = store / "mlflow.db"
    whole = database.read_bytes()
    database.write_bytes(whole[:100_000])

    def lines():
        yield start(some_training(store))
        yield epoch(1)
        yield epoch(2)
        database.write_bytes(whole)
        yield epoch(3)

    live_training.Follower().follow(lines())
    assert steps(only_run()) == [1, 2, 3]
    assert len(caplog.records) == 1


def test_the_end_is_logged_although_the_store_was_away_a_moment_before(store):
    database = store / "mlflow.db"

    def lines():
        yield start(some_training(store))
        yield epoch(1)
        whole = database.read_bytes()
        database.write_bytes(whole[:100_000])
        yield epoch(2)
        database.write_bytes(whole)
        yield message("end", status="FAILED", error="ValueError: why")

    live_training.Follower().follow(lines())
    run = only_run()
    assert (run.info.status, run.data.tags["error"]) == ("FAILED", "ValueError: why")
    assert steps(run) == [1, 2]


@pytest.fixture
def page(stored, monkeypatch):
    """The page of the comparison, while `dvc repro` trains run 3."""
    monkeypatch.setenv("DVC_STAGE", "train@3")
    monkeypatch.setattr(live_training, "_REDRAW", 0.0)
    return stored / paths.PAGE


def test_the_page_shows_the_training_under_dvc_repro(page, stored):
    seen = []

    def lines():
        yield start(some_training(stored, settings={"epochs": 12}))
        for step in (1, 2):
            yield epoch(step)
            seen.append(page.read_text())
        yield END

    live_training.Follower().follow(lines())
    for step, content in enumerate(seen, 1):
        assert f"Training: epoch <strong>{step} of 12</strong>" in content
        assert "run 1, validation" in b64decode(drawings(content)[0]).decode()
    assert "Trained: epoch <strong>2 of 12</strong>" in page.read_text()


def drawings(content):
    return re.findall(r"data:image/svg\+xml;base64,([^\"]+)", content)


@pytest.mark.parametrize("there", [True, False])
def test_a_training_that_dies_puts_the_page_back(page, stored, there):
    if not there:
        page.unlink()
    before = page.read_bytes() if there else None
    follow(start(some_training(stored, settings={"epochs": 12})), epoch(1))
    assert (page.read_bytes() if page.exists() else None) == before


def test_the_second_training_dies_and_the_page_from_before_the_build_is_back(page, stored):
    before = page.read_bytes()
    settings = {"epochs": 12}
    follow(start(some_training(stored, run=1, settings=settings)), epoch(1), END)
    assert page.read_bytes() != before
    follow(start(some_training(stored, run=2, settings=settings)), epoch(1))
    assert page.read_bytes() == before


def test_a_page_that_cannot_be_drawn_does_not_end_the_log(page, stored, caplog):
    curves = stored / paths.curves(1) / "plots" / "metrics"
    shutil.rmtree(curves)
    settings = {"epochs": 12}
    follow(start(some_training(stored, settings=settings)), epoch(1), epoch(2), END)
    assert (only_run().info.status, steps(only_run())) == ("FINISHED", [1, 2])
    assert [str(paths.PAGE) in record.getMessage() for record in caplog.records] == [True]


def test_a_training_by_hand_and_of_an_experiment_leaves_the_page(page, stored, monkeypatch):
    before = page.read_bytes()
    monkeypatch.setenv("DVC_EXP_NAME", "brave-digit")
    training = start(some_training(stored, settings={"epochs": 12}))
    follow(training, epoch(1), END)
    monkeypatch.delenv("DVC_STAGE")
    follow(training, epoch(1), END)
    assert page.read_bytes() == before


@pytest.mark.slow
@pytest.mark.nightly
def test_a_server_shows_it_too(store, monkeypatch):
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    process = server(store, port)
    try:
        await_server(uri)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        training = some_training(store)
        with live_log() as log, claimed(store / ".checkpoints" / "abc"):
            log.start(training)
            log.log(1, {"val_loss": 0.5})
            until(lambda: all_runs() and steps(only_run()) == [1], "the first epoch")
            assert model_runs.mark_dead(mlflow_runs.connect()) == []
            log.log(2, {"val_loss": 0.25})
        assert (only_run().info.status, steps(only_run())) == ("FINISHED", [1, 2])
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
