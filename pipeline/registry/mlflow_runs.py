"""The MLflow store, and the runs in it: those of jobs are children of one parent run."""

import logging
import os
import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlflow
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy import make_url
from sqlalchemy.exc import DatabaseError

from pipeline.config import PipelineError, environment

PARENT = "mlflow.parentRunId"  # MLflow's own tag


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


def run_name(run: int, name: str, label: str) -> str:
    """Return the name of a run in MLflow; `label` holds the settings that a sweep changes."""
    return f"run-{run}-{name} {label}".rstrip()


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


def end_dead(
    client: MlflowClient, filter_: str, is_dead: Callable[[Run], bool], status: str = "KILLED"
) -> list[str]:
    """End the dead ones of the running runs that match the filter; return their names."""
    every = [found.experiment_id for found in client.search_experiments()]
    running = f"attributes.status = 'RUNNING' AND {filter_}"
    left = filter(is_dead, client.search_runs(every, running, max_results=1000))
    # A process ends its run before it lets go of its lock, perhaps just now.
    dead = [run for run in left if client.get_run(run.info.run_id).info.status == "RUNNING"]
    for run in dead:
        client.set_terminated(run.info.run_id, status)
    return [str(run.info.run_name) for run in dead]


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
