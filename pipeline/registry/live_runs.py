"""MLflow runs of trainings: there from the first epoch on, and completed by the stage `track`.

Until then a run has the tag `CHECKPOINT`. Its training holds the lock of that checkpoint.
"""

import socket
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

from pipeline.config import environment, flat
from pipeline.evaluation.results import CURVE_METRICS
from pipeline.registry import mlflow_runs
from pipeline.registry.mlflow_runs import PARENT
from pipeline.storage.files import is_locked
from pipeline.training.live_log import Training

Point = tuple[str, int, float]  # metric, epoch, value

CHECKPOINT = "training.checkpoint"
ERROR = "error"
_HOST = "training.host"
LOG = "log"
_DATA = "data.sha256"


def params(description: Mapping[str, Any]) -> dict[str, str]:
    """Return MLflow's params of a run; `description` is `model.json` or has its keys."""
    plain = flat(description["settings"]) | {key: description[key] for key in ("run", "name")}
    return {key: str(value) for key, value in plain.items()}


def start(client: MlflowClient, training: Training) -> str:
    """Return the id of the training's run, now RUNNING; that of an attempt that died, if any."""
    mark_dead(client)
    parent, label = environment.sweep_job()
    with mlflow_runs.lock():
        place = mlflow_runs.experiment(client, training.data)
        same = f"tags.`{CHECKPOINT}` = '{training.checkpoint}' AND {_here()}"
        for run in client.search_runs([place], same):
            # Only one training has this checkpoint's lock, so an earlier one has ended.
            if run.info.status != "FINISHED" and run.data.tags.get(PARENT) == parent:
                _forget_failure(client, run)
                client.update_run(run.info.run_id, "RUNNING")
                return str(run.info.run_id)
        content = {"settings": training.settings, "run": training.run, "name": training.name}
        return mlflow_runs.start_child(
            client,
            training.data,
            parent,
            mlflow_runs.run_name(training.run, training.name, label),
            params(content),
            {
                CHECKPOINT: training.checkpoint,
                _HOST: socket.gethostname(),
                _DATA: training.sha256,
                "data": training.data,
                **environment.experiment(),
            },
        )


def logged(client: MlflowClient, run: str) -> set[Point]:
    """Return what MLflow has of a run's epochs."""
    return {
        (name, metric.step, metric.value)
        for name in CURVE_METRICS
        for metric in client.get_metric_history(run, name)
    }


def mark_dead(client: MlflowClient) -> list[str]:
    """End the runs of this machine whose training was killed; return their names."""

    def is_dead(run: Run) -> bool:
        return not is_locked(Path(run.data.tags[CHECKPOINT]).with_suffix(".lock"))

    return mlflow_runs.end_dead(client, f"tags.`{CHECKPOINT}` != '' AND {_here()}", is_dead)


def _here() -> str:
    """Return the filter of this machine's runs: another's checkpoint may have the same path."""
    return f"tags.`{_HOST}` = '{socket.gethostname()}'"


def of_model(
    client: MlflowClient,
    place: str,
    description: Mapping[str, Any],
    epochs: Collection[Point],
    parent: str | None,
) -> list[Run]:
    """Return this machine's runs that showed the training of a model, the newest first.

    They have the settings and the data of its `description`, and some of its `epochs` alone.
    """
    data = f"tags.`{_DATA}` = '{description['data']['sha256']}'"
    same = f"tags.`{CHECKPOINT}` != '' AND {_here()} AND {data}"
    return [
        run
        for run in client.search_runs([place], f"{same} AND params.run = '{description['run']}'")
        if run.info.status != "RUNNING"
        and run.data.tags.get(PARENT) == parent
        and run.data.params == params(description)
        and logged(client, run.info.run_id) <= set(epochs)
    ]


def of_experiment(client: MlflowClient, data: str, name: str, parent: str | None) -> str | None:
    """Return the id of the run that showed the training of a DVC experiment that failed."""
    place = mlflow_runs.experiment(client, data)
    same = f"tags.`{CHECKPOINT}` != '' AND tags.DVC_EXP_NAME = '{name}'"
    found = client.search_runs([place], same)
    mine = (run.info.run_id for run in found if run.data.tags.get(PARENT) == parent)
    return next(map(str, mine), None)


def close(client: MlflowClient, run: Run) -> None:
    """Make it the run of a model: no training takes it up again."""
    _forget_failure(client, run)
    if CHECKPOINT in run.data.tags:
        client.delete_tag(run.info.run_id, CHECKPOINT)


def _forget_failure(client: MlflowClient, run: Run) -> None:
    for tag in {ERROR, LOG} & run.data.tags.keys():
        client.delete_tag(run.info.run_id, tag)
