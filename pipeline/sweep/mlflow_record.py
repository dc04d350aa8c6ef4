"""A sweep in MLflow: one parent run, and below it one run for each job."""

import hashlib
import json
import shlex
from pathlib import Path

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Run

from pipeline.config import paths
from pipeline.registry import live_runs, mlflow_runs, model_runs
from pipeline.storage import dvc_experiments
from pipeline.storage.files import is_locked
from pipeline.sweep import job as jobs
from pipeline.sweep.job import State
from pipeline.sweep.overrides import Job

Outcomes = list[tuple[Job, State | None]]

_SWEEP = "sweep"  # tag: digest of the jobs' names
_FOLDER = "sweep.folder"  # tag: the sweep's folder with its logs and its lock
_HOST = "sweep.host"
_LOCK = "alive.lock"  # in the sweep's folder


def lock(folder: Path) -> FileLock:
    """Return the lock that a sweep holds in its folder while it runs."""
    return FileLock(folder / _LOCK)


def open_parent(client: MlflowClient, found: list[Job], typed: list[str], folder: Path) -> str:
    """Return the id of the sweep's run, now RUNNING; the same jobs have the same run."""
    identity = hashlib.sha256(" ".join(job.name for job in found).encode()).hexdigest()
    tags = {_FOLDER: str(folder), _HOST: jobs.HOST}
    tags["command"] = f"python train.py -m {shlex.join(typed)}"
    name = f"sweep {' '.join(typed)}"
    return mlflow_runs.open_parent(client, found[0].data, name, (_SWEEP, identity), **tags)


def mark_dead(client: MlflowClient) -> list[str]:
    """End the runs that a crash left RUNNING; return their names."""

    def is_dead(parent: Run) -> bool:
        return not is_locked(Path(parent.data.tags[_FOLDER]) / _LOCK)

    # In a shared store only sweeps of this machine can be judged.
    here = f"tags.`{_FOLDER}` != '' AND tags.`{_HOST}` = '{jobs.HOST}'"
    return mlflow_runs.end_dead(client, here, is_dead) + model_runs.mark_dead(client)


def complete(client: MlflowClient, job: Job, state: State, parent: str | None, log: Path) -> None:
    """Make sure that MLflow has the job: the run of its model, or one that says why it failed."""
    if state.state == "done":
        place = mlflow_runs.experiment(client, job.data)
        experiment = dvc_experiments.find(state.experiment)
        digest = json.loads(dvc_experiments.read(experiment, paths.TRACKED))[str(job.run)]
        if not model_runs.tracked(client, place, digest, parent):
            jobs.track(job, experiment, parent)
        return
    tags = {live_runs.ERROR: state.reason or state.state, live_runs.LOG: str(log)}
    if run := live_runs.of_experiment(client, job.data, job.name, parent):
        mlflow_runs.set_tags(client, run, tags)
    else:  # it ended before it trained
        name = mlflow_runs.run_name(job.run, job.run_name, job.label)
        params = {"run": job.run, **job.typed}
        run = mlflow_runs.start_child(client, job.data, parent, name, params, tags)
    client.set_terminated(run, "FAILED" if state.state == "failed" else "KILLED")


def close_parent(
    client: MlflowClient, parent: str, outcomes: Outcomes, *, interrupted: bool
) -> None:
    """End the sweep's run, with the metrics of its best job."""
    if best := best_of(outcomes):
        metrics = {"val_accuracy": best.val_accuracy, "val_loss": best.val_loss}
        mlflow_runs.log(client, parent, metrics)
        mlflow_runs.set_tags(client, parent, {"best": best.experiment})
    done = all(state and state.state == "done" for _, state in outcomes)
    client.set_terminated(parent, "FINISHED" if done else "KILLED" if interrupted else "FAILED")


def best_of(outcomes: Outcomes) -> State | None:
    """Return the state of the job with the highest validation accuracy, then the lowest loss."""
    done = [state for _, state in outcomes if state and state.state == "done"]
    return min(done, key=State.rank, default=None)
