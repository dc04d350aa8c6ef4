"""MLflow runs of trained models: one for each, filled from the files that DVC tracks."""

import hashlib
import json
import logging
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from omegaconf import OmegaConf

from pipeline.config import PipelineError, environment, paths
from pipeline.evaluation import results
from pipeline.registry import live_runs
from pipeline.registry.mlflow_runs import PARENT, end_dead, experiment, lock, run_name, set_tags
from pipeline.storage.files import sha256
from pipeline.training import determinism

logger = logging.getLogger(__name__)

DIGEST = "model.digest"
COMPLETE = "complete"
_MODELS = "models"  # a lock, held while a run is filled
_NO_NAME = re.compile(r"[^\w.\- ]")  # characters that MLflow refuses in names
_LIBRARIES = ("tensorflow", "tensorflow-cpu", "keras", "numpy", "ai-edge-litert", "mlflow", "dvc")


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

    It is the run that showed the training, if there is one.

    `parent`: id of the MLflow run whose child it must be. A model that was logged outside a sweep
    is logged again under it. `label` is appended to the name.
    """
    description = _json(paths.model(run) / "model.json")
    mark_dead(client)
    with lock():
        place = experiment(client, description["data"]["name"])
    with lock(_MODELS):
        shown = live_runs.of_model(client, place, description, epochs(run), parent)
        found = tracked(client, place, digest(run), parent) or _fill(
            client, place, run, description, parent, label, shown
        )
        for again in shown:  # the same model, trained once more
            if again.info.status == "FINISHED" and again.info.run_id != found.info.run_id:
                client.delete_run(again.info.run_id)
        return found


def tracked(
    client: MlflowClient, place: str, identity: str, parent: str | None = None
) -> Run | None:
    """Return the whole run of that digest, under `parent` if it is given."""
    under = f" AND tags.`{PARENT}` = '{parent}'" if parent else ""
    runs = client.search_runs([place], f"tags.`{DIGEST}` = '{identity}'{under}")
    whole = (run for run in runs if run.info.status == "FINISHED" and COMPLETE in run.data.tags)
    return next(whole, None)


def _json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise PipelineError(f"{path} is missing: dvc repro") from None
    return content


def mark_dead(client: MlflowClient) -> list[str]:
    """End the runs of processes that were killed while they filled them; return their names.

    A process that fills a run holds the lock. That is not so on another machine, so on a shared
    server only the trainings of this machine are marked.
    """
    marked = live_runs.mark_dead(client)
    if not environment.artifact_location():
        return marked
    with lock(_MODELS):
        return marked + end_dead(client, f"tags.`{DIGEST}` != ''", lambda _: True, "FAILED")


def _fill(
    client: MlflowClient,
    place: str,
    run: int,
    description: dict[str, Any],
    parent: str | None,
    label: str,
    shown: list[Run],
) -> Run:
    name = run_name(run, description["name"], label)
    tags = {DIGEST: digest(run), **_tags(run, description)}
    if parent:
        tags[PARENT] = parent
    created = shown[0] if shown else client.create_run(place, run_name=name)
    identity = created.info.run_id
    set_tags(client, identity, tags)
    live_runs.close(client, created)
    known = live_runs.logged(client, identity)
    with mlflow.start_run(run_id=identity):
        mlflow.log_params(live_runs.params(description))
        missing = [m for m in _metrics(run) if (m.key, m.step, m.value) not in known]
        client.log_batch(identity, metrics=missing)
        mlflow.log_artifacts(str(paths.evaluation(run)), "evaluation")
        for file in (*sorted(paths.model(run).glob("*.tflite")), paths.model(run) / "model.json"):
            mlflow.log_artifact(str(file), "bundle")
        determinism.import_tensorflow()  # only where there is something to log
        from pipeline.registry import keras_flavor

        keras_flavor.log(paths.model(run), description)
        # Last: a run without this tag counts as half-filled.
        mlflow.set_tag(COMPLETE, "true")
    logger.info("MLflow: logged %s", name)
    return client.get_run(identity)


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
    """Yield DVCLive's metrics per epoch, then those of `evaluate`, also by class."""
    classes = _json(paths.model(run) / "model.json")["classes"]
    now, points = int(time.time() * 1000), epochs(run)
    for name, step, value in points:
        yield Metric(name, value, now, step)
    # One step later: MLflow shows the last value of a name as its result.
    final = max(step for _, step, _ in points) + 1
    evaluated = _json(paths.evaluation(run) / "metrics.json")
    for name, value in evaluated.items():
        if isinstance(value, int | float) and name != "run":
            yield Metric(name, value, now, final)
    for name in ("recall", "precision"):
        for label, value in zip(classes, evaluated[name], strict=True):
            yield Metric(f"{name}_{_NO_NAME.sub('_', str(label))}", value, now, final)


def epochs(run: int) -> list[live_runs.Point]:
    """Return DVCLive's metrics of a run."""
    curves = results.read_curves(paths.curves(run))
    steps = list(map(int, curves.pop("step")))
    return [
        (name, step, value)
        for name, values in curves.items()
        for step, value in zip(steps, values, strict=True)
    ]
