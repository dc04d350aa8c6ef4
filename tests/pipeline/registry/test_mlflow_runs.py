import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import mlflow
import numpy as np
import pytest

from pipeline import track
from pipeline.config import CONF, PipelineError, paths
from pipeline.data import dataset
from pipeline.registry import keras_flavor, mlflow_runs, model_runs
from pipeline.storage import files
from serve.models.predictor import Predictor, softmax


@pytest.fixture
def client(stored):
    return mlflow_runs.connect()


def runs(client):
    experiment = client.get_experiment_by_name("mnist")
    return client.search_runs([experiment.experiment_id])


def test_a_run_has_the_files_figures_and_says_where_it_comes_from(client, monkeypatch):
    monkeypatch.setenv("DVC_EXP_NAME", "brave-digit")
    Path("dvc.lock").write_text("stages: {train@3: {cmd: python -m pipeline.train run=3}}")
    run = model_runs.ensure_tracked(client, 3)
    assert run.info.run_name == "run-3-optimized"
    assert run.info.status == "FINISHED"
    evaluated = json.loads((paths.evaluation(3) / "metrics.json").read_text())
    for name in ("val_accuracy", "val_loss", "test_accuracy", "test_loss", "ece", "min_recall"):
        assert run.data.metrics[name] == evaluated[name]
    for name in ("train_loss", "train_accuracy", "val_loss", "learning_rate"):
        lines = (paths.curves(3) / "plots" / "metrics" / f"{name}.tsv").read_text().splitlines()
        written = [tuple(map(float, line.split("\t"))) for line in lines[1:]]
        history = client.get_metric_history(run.info.run_id, name)
        logged = sorted((metric.step, metric.value) for metric in history)
        assert logged[: len(written)] == written
    described = json.loads((paths.model(3) / "model.json").read_text())
    assert run.data.tags[model_runs.DIGEST] == model_runs.digest(3)
    assert run.data.tags["data.sha256"] == described["data"]["sha256"]
    assert run.data.tags["DVC_EXP_NAME"] == "brave-digit"
    assert run.data.tags["seed"] == "42"
    assert run.data.tags["version.keras"]
    assert len(run.data.tags["dvc.lock.train"]) == 64
    assert run.data.params["optimizer.learning_rate"] == "0.01"
    assert run.data.params["run"] == "3"


def sweep(client):
    place = client.get_experiment_by_name("mnist")
    place = place.experiment_id if place else client.create_experiment("mnist")
    return client.create_run(place).info.run_id


def test_a_model_that_is_known_elsewhere_is_logged_again_under_a_sweep_once(client):
    alone = model_runs.ensure_tracked(client, 3)
    parent = sweep(client)
    child = model_runs.ensure_tracked(client, 3, parent, "epochs=2 seed=7")
    assert child.info.run_id != alone.info.run_id
    assert child.info.run_name == "run-3-optimized epochs=2 seed=7"
    assert child.data.tags[mlflow_runs.PARENT] == parent
    assert child.data.metrics == alone.data.metrics
    again = model_runs.ensure_tracked(client, 3, parent, "epochs=2 seed=7")
    assert again.info.run_id == child.info.run_id
    before = len(runs(client))
    model_runs.ensure_tracked(client, 3)
    assert len(runs(client)) == before


def test_the_stage_hangs_its_runs_under_the_sweep_that_it_is_a_job_of(
    stored, configured, monkeypatch
):
    parent = sweep(mlflow_runs.connect())
    monkeypatch.setenv("SWEEP_PARENT", parent)
    monkeypatch.setenv("SWEEP_LABEL", "seed=7")
    track.main(configured(1, "runs=[3]"))
    (child,) = (run for run in runs(mlflow_runs.connect()) if run.info.run_id != parent)
    assert child.data.tags[mlflow_runs.PARENT] == parent
    assert child.info.run_name == "run-3-optimized seed=7"


def test_new_figures_of_the_same_model_are_another_run(client):
    first = model_runs.ensure_tracked(client, 3)
    path = paths.evaluation(3) / "metrics.json"
    files.write_json(path, json.loads(path.read_text()) | {"ece": 0.5})
    second = model_runs.ensure_tracked(client, 3)
    assert second.info.run_id != first.info.run_id
    assert second.data.metrics["ece"] == 0.5


def test_figures_of_another_model_are_refused(client):
    path = paths.model(3) / "model.json"
    files.write_json(path, json.loads(path.read_text()) | {"sha256": "another"})
    with pytest.raises(PipelineError, match=r"python -m pipeline\.evaluate run=3"):
        model_runs.ensure_tracked(client, 3)


def test_a_deleted_experiment_is_named_with_the_way_back(client):
    identifier = client.create_experiment("mnist")
    client.delete_experiment(identifier)
    with pytest.raises(PipelineError, match=f"restore --experiment-id {identifier}"):
        model_runs.ensure_tracked(client, 3)


def test_a_relative_store_is_refused(built, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    with pytest.raises(PipelineError, match="must be absolute"):
        mlflow_runs.connect()


def test_the_stage_tracks_all_runs_once_and_writes_their_digests(stored, configured):
    for _ in range(2):
        track.main(configured(1, "runs=[1,3]"))
    assert json.loads(paths.TRACKED.read_text()) == {
        "1": model_runs.digest(1),
        "3": model_runs.digest(3),
    }
    names = [run.info.run_name for run in runs(mlflow_runs.connect())]
    assert sorted(names) == ["run-1-baseline", "run-3-optimized"]


def test_a_run_that_failed_half_way_does_not_count(client, monkeypatch):
    def crash(*_):
        raise RuntimeError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(keras_flavor, "log", crash)
        with pytest.raises(RuntimeError, match="disk full"):
            model_runs.ensure_tracked(client, 3)
    assert [run.info.status for run in runs(client)] == ["FAILED"]
    whole = model_runs.ensure_tracked(client, 3)
    assert whole.info.status == "FINISHED"
    assert model_runs.ensure_tracked(client, 3).info.run_id == whole.info.run_id


def test_a_run_whose_process_was_killed_is_marked_and_replaced(client):
    experiment = client.create_experiment("mnist")
    killed = client.create_run(experiment, tags={model_runs.DIGEST: model_runs.digest(3)})
    whole = model_runs.ensure_tracked(client, 3)
    assert whole.info.run_id != killed.info.run_id
    assert client.get_run(killed.info.run_id).info.status == "FAILED"


def test_the_keras_model_of_a_run_gives_the_served_answers(client, tensorflow):
    run = model_runs.ensure_tracked(client, 3)
    (logged,) = client.search_logged_models([run.info.experiment_id])
    assert logged.source_run_id == run.info.run_id
    model = mlflow.pyfunc.load_model(logged.model_uri)
    assert model.metadata.signature.inputs.inputs[0].shape == (-1, 28, 28, 1)
    assert model.input_example.shape == (1, 28, 28, 1)
    test = dataset.load(paths.processed("mnist"), "test")
    logits = model.predict(test.images[:50, ..., None])
    bundle = client.download_artifacts(run.info.run_id, "bundle")
    served = Predictor(Path(bundle))
    expected = served.probabilities(test.images[:50])
    temperature = served.description["temperature"]
    assert np.allclose(softmax(np.asarray(logits), temperature), expected, atol=1e-4)


def test_processes_that_start_at_once_do_not_destroy_a_new_store(built):
    code = (
        "import os; from pipeline.registry import mlflow_runs;"
        "mlflow_runs.connect().create_experiment(str(os.getpid()))"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(CONF.parent)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    errors = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [0] * 3, errors
    assert len(mlflow_runs.connect().search_experiments()) == 4


def test_the_store_lies_in_the_true_root(built, tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "root"))
    (tmp_path / "root").mkdir()
    client = mlflow_runs.connect()
    run = model_runs.ensure_tracked(client, 1)
    assert (tmp_path / "root" / "mlflow.db").exists()
    assert run.info.artifact_uri.startswith((tmp_path / "root" / "mlartifacts").as_uri())
    assert not (built / "mlflow.db").exists()


def test_a_damaged_store_is_named_with_the_way_out(workspace, empty_store, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = workspace / "mlflow.db"
    store.write_bytes(empty_store.read_bytes()[:100_000])
    with pytest.raises(PipelineError, match=rf"{store}: .*malformed\n.*move it away"):
        mlflow_runs.connect()
    store.write_bytes(empty_store.read_bytes())
    with closing(sqlite3.connect(store)) as database, database:
        database.execute("update alembic_version set version_num = 'another'")
    with pytest.raises(PipelineError, match="mlflow db upgrade"):
        mlflow_runs.connect()
