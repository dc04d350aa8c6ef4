"""The model registry: versions of the bundle, and the aliases that say which one is served."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipeline import paths
from serve.predictor import BundleError, Predictor

logger = logging.getLogger(__name__)

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
BUNDLE = "bundle.digest"
REPLACED = "replaced"
ROLLED_BACK = "rolled_back"
_ARTIFACT = "champion"  # folder of the MLflow run


def bundle_digest(bundle: Path) -> str:
    """What identifies a bundle: the hash of its description, which holds the model's."""
    return hashlib.sha256((bundle / "model.json").read_bytes()).hexdigest()


def ensure_registered(
    client: MlflowClient, model: str, bundle: Path, run: Run, tags: dict[str, str]
) -> ModelVersion:
    """The version of `model` that is this bundle, readable; registers it if there is none."""
    if not client.search_registered_models(f"name = '{model}'"):
        client.create_registered_model(model)
    digest = bundle_digest(bundle)
    found = client.search_model_versions(f"name = '{model}' and tags.`{BUNDLE}` = '{digest}'")
    if found:
        version = max(found, key=lambda version: int(version.version))
        if not readable(version):
            client.log_artifacts(str(version.run_id), str(bundle), _ARTIFACT)
        return version
    client.log_artifacts(run.info.run_id, str(bundle), _ARTIFACT)
    return client.create_model_version(
        model,
        f"{run.info.artifact_uri}/{_ARTIFACT}",
        run.info.run_id,
        tags={BUNDLE: digest, **tags},
    )


@contextmanager
def downloaded(version: ModelVersion) -> Iterator[Predictor]:
    """A predictor of the version as the registry gives it out, hash verified."""
    with tempfile.TemporaryDirectory() as folder:
        uri = f"models:/{version.name}/{version.version}"
        yield Predictor(Path(mlflow.artifacts.download_artifacts(uri, dst_path=folder)))


def readable(version: ModelVersion) -> bool:
    """Whether the registry still has the version's files, unspoilt."""
    try:
        with downloaded(version):
            return True
    except (BundleError, MlflowException, OSError) as error:
        logger.warning("%s version %s cannot be read: %s", version.name, version.version, error)
        return False


def aliased(client: MlflowClient, model: str, alias: str) -> ModelVersion | None:
    """The version that the alias points at, if any."""
    for registered in client.search_registered_models(f"name = '{model}'"):
        if number := registered.aliases.get(alias):
            return client.get_model_version(model, str(number))
    return None


def promote(client: MlflowClient, version: ModelVersion, reasons: dict[str, str]) -> None:
    """Makes the version the champion; the one that it replaces becomes `previous`."""
    model, number = version.name, version.version
    present = aliased(client, model, CHAMPION)
    _tag(client, version, reasons | {REPLACED: str(present.version) if present else ""})
    client.delete_model_version_tag(model, number, ROLLED_BACK)
    if present:
        client.set_registered_model_alias(model, PREVIOUS, present.version)
    client.set_registered_model_alias(model, CHAMPION, number)
    challenger = aliased(client, model, CHALLENGER)
    if challenger and challenger.version == number:
        client.delete_registered_model_alias(model, CHALLENGER)
    remember("promote", version, present)


def challenge(client: MlflowClient, version: ModelVersion, reasons: dict[str, str]) -> None:
    """Makes the version the challenger, with the reasons why it is not the champion."""
    _tag(client, version, reasons)
    client.set_registered_model_alias(version.name, CHALLENGER, version.version)


def _tag(client: MlflowClient, version: ModelVersion, tags: dict[str, str]) -> None:
    for key, value in tags.items():
        client.set_model_version_tag(version.name, version.version, key, value)


def roll_back(client: MlflowClient, model: str) -> tuple[ModelVersion, ModelVersion] | None:
    """Makes `previous` the champion again: (the old champion, the new one), or None.

    `previous` then is what that one had replaced, so that one can go further back.
    """
    present, target = aliased(client, model, CHAMPION), aliased(client, model, PREVIOUS)
    if not present or not target:
        return None
    client.set_model_version_tag(model, present.version, ROLLED_BACK, now())
    client.set_registered_model_alias(model, CHAMPION, target.version)
    if before := target.tags.get(REPLACED):
        client.set_registered_model_alias(model, PREVIOUS, before)
    else:
        client.delete_registered_model_alias(model, PREVIOUS)
    remember("rollback", target, present)
    return present, target


def remember(action: str, version: ModelVersion, replaced: ModelVersion | None) -> None:
    """Adds a line to the history in git, which outlives the registry.

    A registry that is filled again with what the last line says is no news.
    """
    line: dict[str, Any] = {
        "action": action,
        "bundle": version.tags[BUNDLE],
        "replaced": replaced.tags[BUNDLE] if replaced else None,
    }
    history = paths.PROMOTIONS
    lines = history.read_text().splitlines() if history.exists() else []
    if lines and json.loads(lines[-1])["bundle"] == line["bundle"]:
        return
    line |= {"version": int(version.version), "at": now()}
    history.parent.mkdir(exist_ok=True)
    with history.open("a") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def now() -> str:
    """The time in UTC, to the second, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
