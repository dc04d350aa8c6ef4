"""MLflow runs of several jobs: one parent run, and below it one child run for each job."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from pipeline.registry import mlflow_runs


def open_parent(
    client: MlflowClient, data: str, name: str, identity: tuple[str, str], **tags: str
) -> str:
    """Return the id of the run that has the tag `identity`, now RUNNING; create it if missing."""
    key, value = identity
    with mlflow_runs.lock():
        place = mlflow_runs.experiment(client, data)
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
    place = mlflow_runs.experiment(client, data)
    below = {mlflow_runs.PARENT: parent} if parent else {}
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


def end(client: MlflowClient, run: str, status: str, **tags: str) -> None:
    """End a run as FINISHED, FAILED or KILLED."""
    set_tags(client, run, tags)
    client.set_terminated(run, status)
