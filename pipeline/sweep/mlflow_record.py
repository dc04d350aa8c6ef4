"""What MLflow knows of a sweep: one parent run, and below it one run per job."""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path

from filelock import FileLock, Timeout
from mlflow import MlflowClient
from mlflow.entities import Run

from pipeline.registry import mlflow_runs
from pipeline.storage import dvc_experiments
from pipeline.sweep import job as jobs
from pipeline.sweep.job import State
from pipeline.sweep.overrides import Job

Outcomes = list[tuple[Job, State | None]]

_SWEEP = "sweep"  # tag: which jobs
_FOLDER = "sweep.folder"  # tag: where the sweep writes, and holds its lock
_HOST = "sweep.host"


def lock(folder: Path) -> FileLock:
    """Held as long as the sweep of that folder lives."""
    return FileLock(folder / "alive.lock", timeout=0)


def open_parent(client: MlflowClient, found: list[Job], typed: list[str], folder: Path) -> str:
    """Id of the sweep's run, now RUNNING; the same jobs have the same run."""
    place = mlflow_runs.experiment(client, found[0].data)
    identity = hashlib.sha256(" ".join(job.name for job in found).encode()).hexdigest()
    tags = {_SWEEP: identity, _FOLDER: str(folder), _HOST: jobs.HOST, "command": _command(typed)}
    with mlflow_runs.lock("sweep"):
        before = client.search_runs([place], f"tags.{_SWEEP} = '{identity}'")
        parent: Run = (
            before[0] if before else client.create_run(place, run_name=f"sweep {' '.join(typed)}")
        )
    for key, value in tags.items():
        client.set_tag(parent.info.run_id, key, value)
    client.update_run(parent.info.run_id, "RUNNING")
    return str(parent.info.run_id)


def _command(typed: list[str]) -> str:
    return f"python train.py -m {shlex.join(typed)}"


def mark_dead(client: MlflowClient) -> list[str]:
    """Ends the runs that a crash has left RUNNING; their names."""
    every = [found.experiment_id for found in client.search_experiments()]
    marked = []
    for parent in client.search_runs(every, "attributes.status = 'RUNNING'", max_results=1000):
        # Of a store that others use too, only what was started here can be judged.
        here = parent.data.tags.get(_HOST) == jobs.HOST
        folder = parent.data.tags.get(_FOLDER)
        if here and folder and not _alive(Path(folder)):
            client.set_terminated(parent.info.run_id, "KILLED")
            marked.append(str(parent.info.run_name))
    return marked + mlflow_runs.mark_half_filled(client)


def _alive(folder: Path) -> bool:
    if not folder.exists():
        return False
    try:
        with lock(folder):
            return False
    except Timeout:
        return True


def complete(client: MlflowClient, job: Job, state: State, parent: str | None, log: Path) -> None:
    """Makes sure that MLflow has the job: its models' run, or one that says why there is none."""
    place = mlflow_runs.experiment(client, job.data)
    if state.state == "done":
        made = dvc_experiments.find(state.experiment)
        digest = jobs.digests(made)[str(job.run)]
        if not any(map(_whole, mlflow_runs.tracked(client, place, digest, parent))):
            jobs.track(job, made, parent)
        return
    name = mlflow_runs.run_name(job.run, job.run_name, job.label)
    tags = {"error": state.reason or state.state, "log": str(log)}
    if parent:
        tags[mlflow_runs.PARENT] = parent
    run = client.create_run(place, run_name=name, tags=tags)
    for key, value in ({"run": job.run} | job.typed).items():
        client.log_param(run.info.run_id, key, value)
    client.set_terminated(run.info.run_id, "FAILED" if state.state == "failed" else "KILLED")


def _whole(run: Run) -> bool:
    return run.info.status == "FINISHED" and mlflow_runs.COMPLETE in run.data.tags


def close_parent(
    client: MlflowClient, parent: str, outcomes: Outcomes, *, interrupted: bool
) -> None:
    """Ends the sweep's run and writes its best child's figures into it."""
    if best := best_of(outcomes):
        for name in ("val_accuracy", "val_loss"):
            client.log_metric(parent, name, getattr(best, name))
        client.set_tag(parent, "best", best.experiment)
    done = all(state and state.state == "done" for _, state in outcomes)
    client.set_terminated(parent, "FINISHED" if done else "KILLED" if interrupted else "FAILED")


def best_of(outcomes: Outcomes) -> State | None:
    """What the job with the highest validation accuracy came to; of equals the lower loss."""
    done = [state for _, state in outcomes if state and state.state == "done"]
    return min(done, key=State.rank, default=None)
