"""MLflow runs: one per trained model, filled from the files that DVC tracks, and those of jobs.

The runs of a sweep's or a search's jobs are children of one parent run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import mlflow
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from omegaconf import OmegaConf
from sqlalchemy import make_url
from sqlalchemy.exc import DatabaseError

from pipeline.config import PipelineError, environment, flat, paths
from pipeline.evaluation import results
from pipeline.storage.files import sha256
from pipeline.training import determinism

logger = logging.getLogger(__name__)

DIGEST = "model.digest"
PARENT = "mlflow.parentRunId"  # MLflow's own tag
COMPLETE = "complete"
_LIBRARIES = ("tensorflow", "tensorflow-cpu", "keras", "numpy", "ai-edge-litert", "mlflow", "dvc")


def connect() -> MlflowClient:
    """Return a client of the store, which is also the registry; creates its tables if needed.

    Processes that create the tables of one SQLite file at the same time destroy it: hence the lock.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.ERROR)  # warns that uv installs no pip
    mlflow.set_tracking_uri(environment.tracking_uri())
    mlflow.set_registry_uri(environment.tracking_uri())
    with lock():
        try:
            client = MlflowClient()
            client.search_experiments(max_results=1)
        except DatabaseError as error:
            raise PipelineError(_unusable(error)) from error
        except MlflowException as error:  # another version's tables, a server that is away
            raise PipelineError(f"MLflow: {error}") from error
    return client


def _unusable(error: DatabaseError) -> str:
    database = make_url(environment.tracking_uri())
    if database.get_backend_name() != "sqlite":
        return f"{database}: {error.orig}"  # without its password
    return (
        f"MLflow cannot use {database.database}: {error.orig}\n"
        "Put a backup of it there, or move it away: python -m pipeline.register then makes a new "
        "one with the present runs and champion"
    )


def store_exists() -> bool:
    """Return whether there is a store; `connect` creates a missing SQLite file."""
    uri = environment.tracking_uri()
    database = uri.removeprefix("sqlite:///").partition("?")[0]
    return not uri.startswith("sqlite:") or Path(database).exists()


def where_shown() -> str:
    """Return the address of MLflow's pages, or the command that opens them."""
    uri, root = environment.tracking_uri(), environment.root()
    if uri.startswith("http"):
        return uri
    shown = "sqlite:///mlflow.db" if uri == f"sqlite:///{root / 'mlflow.db'}" else uri
    return f"mlflow ui --backend-store-uri {shlex.quote(shown)}"


def lock(name: str = "mlflow") -> FileLock:
    """Return a lock to hold while something is looked up in the store and created if missing."""
    folder = environment.root() / ".checkpoints"
    folder.mkdir(exist_ok=True)
    return FileLock(folder / f"{name}.lock")


def digest(run: int) -> str:
    """Return what identifies an MLflow run: the hash of all that is logged into it."""
    model, evaluation = paths.model(run) / "model.json", paths.evaluation(run) / "metrics.json"
    if _json(model)["sha256"] != _json(evaluation)["sha256"]:
        remedy = f"python -m pipeline.evaluate run={run}"
        raise PipelineError(f"run {run} was trained again after its evaluation: {remedy}")
    curves = sorted((paths.curves(run) / "plots" / "metrics").glob("*.tsv"))
    content = b"".join(sha256(path).encode() for path in (model, evaluation, *curves))
    return hashlib.sha256(content).hexdigest()


def ensure_tracked(
    client: MlflowClient, run: int, parent: str | None = None, label: str = ""
) -> Run:
    """Return the finished MLflow run of the model in `models/runs/<run>/`; log it if needed.

    `parent`: id of the MLflow run whose child it must be. A model that was logged outside a sweep
    is logged again under it. `label` is appended to the name.
    """
    description = _json(paths.model(run) / "model.json")
    mark_half_filled(client)
    with lock():
        place = experiment(client, description["data"]["name"])
        found = tracked(client, place, digest(run), parent)
        return found or _fill(client, place, run, description, parent, label)


def tracked(
    client: MlflowClient, place: str, identity: str, parent: str | None = None
) -> Run | None:
    """Return the whole run of that digest, under `parent` if it is given."""
    under = f" AND tags.`{PARENT}` = '{parent}'" if parent else ""
    runs = client.search_runs([place], f"tags.`{DIGEST}` = '{identity}'{under}")
    whole = (run for run in runs if run.info.status == "FINISHED" and COMPLETE in run.data.tags)
    return next(whole, None)


def run_name(run: int, name: str, label: str) -> str:
    """Return the name of a run in MLflow; `label` holds the settings that a sweep changes."""
    return f"run-{run}-{name} {label}".rstrip()


def _json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise PipelineError(f"{path} is missing: dvc repro") from None
    return content


def mark_half_filled(client: MlflowClient) -> list[str]:
    """Mark runs as failed whose process was killed while it filled them; return their names.

    A process that fills a run holds the lock. That is not so on another machine, so nothing is
    marked on a shared server.
    """
    if not environment.artifact_location():
        return []
    with lock():
        every = [found.experiment_id for found in client.search_experiments()]
        running = f"attributes.status = 'RUNNING' AND tags.`{DIGEST}` != ''"
        left = client.search_runs(every, running, max_results=1000)
        for run in left:
            client.set_terminated(run.info.run_id, "FAILED")
    return [str(run.info.run_name) for run in left]


def experiment(client: MlflowClient, name: str) -> str:
    """Return the id of a data set's MLflow experiment; create it if there is none."""
    found = client.get_experiment_by_name(name)
    if not found:
        return client.create_experiment(name, environment.artifact_location())
    if found.lifecycle_stage != "active":
        restore = f"mlflow experiments restore --experiment-id {found.experiment_id}"
        raise PipelineError(f"the MLflow experiment {name} was deleted: {restore}")
    return str(found.experiment_id)


def open_parent(
    client: MlflowClient, data: str, name: str, identity: tuple[str, str], **tags: str
) -> str:
    """Return the id of the run that has the tag `identity`, now RUNNING; create it if missing."""
    key, value = identity
    with lock():
        place = experiment(client, data)
        found = client.search_runs([place], f"tags.`{key}` = '{value}'", max_results=1)
        run = found[0] if found else client.create_run(place, run_name=name, tags={key: value})
    run_id = str(run.info.run_id)
    set_tags(client, run_id, tags)
    client.update_run(run_id, "RUNNING")
    return run_id


def start_child(
    client: MlflowClient,
    data: str,
    parent: str | None,
    name: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
) -> str:
    """Create the run of a job, below `parent` if there is one; return its id."""
    place = experiment(client, data)
    below = {PARENT: parent} if parent else {}
    run = client.create_run(place, run_name=name, tags={**tags, **below})
    run_id = str(run.info.run_id)
    client.log_batch(run_id, params=[Param(key, str(value)) for key, value in params.items()])
    return run_id


def log(client: MlflowClient, run: str, metrics: Mapping[str, float], step: int = 0) -> None:
    """Log metrics of a step; MLflow takes those of the last step as the result."""
    now = int(time.time() * 1000)
    client.log_batch(run, [Metric(name, value, now, step) for name, value in metrics.items()])


def set_tags(client: MlflowClient, run: str, tags: Mapping[str, Any]) -> None:
    """Set tags; unlike params they may change later."""
    client.log_batch(run, tags=[RunTag(key, str(value)) for key, value in tags.items()])


def _fill(
    client: MlflowClient,
    place: str,
    run: int,
    description: dict[str, Any],
    parent: str | None,
    label: str,
) -> Run:
    name = run_name(run, description["name"], label)
    tags = {DIGEST: digest(run), **_tags(run, description)}
    if parent:
        tags[PARENT] = parent
    created = client.create_run(place, run_name=name, tags=tags)
    with mlflow.start_run(run_id=created.info.run_id):
        mlflow.log_params(flat(description["settings"]) | {"run": run, "name": description["name"]})
        client.log_batch(created.info.run_id, metrics=list(_metrics(run)))
        mlflow.log_artifacts(str(paths.evaluation(run)), "evaluation")
        for file in ("model.tflite", "model.json"):
            mlflow.log_artifact(str(paths.model(run) / file), "bundle")
        determinism.import_tensorflow()  # only where there is something to log
        from pipeline.registry import keras_flavor

        keras_flavor.log(paths.model(run), description)
        # Last: a run without this tag counts as half-filled.
        mlflow.set_tag(COMPLETE, "true")
    logger.info("MLflow: logged %s", name)
    return client.get_run(created.info.run_id)


def _tags(run: int, description: dict[str, Any]) -> dict[str, str]:
    settings = description["settings"]
    tags = {
        "data": description["data"]["name"],
        "data.sha256": description["data"]["sha256"],
        "seed": str(settings["seed"]),
        "threads": str(settings["threads"]),
        "dvc.lock.train": _lock_entry(f"train@{run}"),
    }
    for library in _LIBRARIES:
        with suppress(PackageNotFoundError):
            tags[f"version.{library}"] = version(library)
    return tags | environment.experiment()


def _lock_entry(stage: str) -> str:
    """Return the hash of the stage's entry in `dvc.lock`; empty if the stage was run by hand."""
    file = Path("dvc.lock")
    content: Any = OmegaConf.to_container(OmegaConf.load(file)) if file.exists() else {}
    entry = content.get("stages", {}).get(stage)
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest() if entry else ""


def _metrics(run: int) -> Iterator[Metric]:
    """Yield DVCLive's metrics per epoch, then those of `evaluate`, also by digit."""
    now, curves = int(time.time() * 1000), results.read_curves(paths.curves(run))
    steps = list(map(int, curves.pop("step")))
    for name, values in curves.items():
        for step, value in zip(steps, values, strict=True):
            yield Metric(name, value, now, step)
    # One step later: MLflow shows the last value of a name as its result.
    final = max(steps) + 1
    evaluated = _json(paths.evaluation(run) / "metrics.json")
    for name, value in evaluated.items():
        if isinstance(value, int | float) and name != "run":
            yield Metric(name, value, now, final)
    for name in ("recall", "precision"):
        for digit, value in enumerate(evaluated[name]):
            yield Metric(f"{name}_{digit}", value, now, final)
