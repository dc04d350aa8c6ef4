"""The model registry: versions of the bundle, and the aliases that say which one is served."""

from __future__ import annotations

import json
import logging
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

from pipeline.config import paths
from pipeline.storage.files import replacing
from serve.models import bundle_digest
from serve.models.predictor import BundleError, Predictor

logger = logging.getLogger(__name__)

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
BUNDLE = "bundle.digest"  # read by services of earlier versions too: its meaning stays
LIKELIHOOD = "bundle.likelihood"
PROMOTED = "promoted_at"
ROLLED_BACK = "rolled_back"
_ARTIFACT = "champion"  # folder of the MLflow run


def identity(version: ModelVersion) -> str:
    """What the history calls a bundle: the digests of both, of an earlier one that of its model."""
    return "+".join(version.tags[tag] for tag in (BUNDLE, LIKELIHOOD) if tag in version.tags)


def ensure_registered(
    client: MlflowClient, model: str, bundle: Path, run: Run, tags: dict[str, str]
) -> ModelVersion:
    """The version of `model` that is this bundle, readable; registers it if there is none."""
    if not client.search_registered_models(f"name = '{model}'"):
        client.create_registered_model(model)
    digest = bundle_digest.model_digest(bundle)
    likelihood = bundle_digest.likelihood_digest(bundle)
    same_model = client.search_model_versions(f"name = '{model}' and tags.`{BUNDLE}` = '{digest}'")
    found = [version for version in same_model if version.tags.get(LIKELIHOOD, "") == likelihood]
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
        tags={BUNDLE: digest, **({LIKELIHOOD: likelihood} if likelihood else {}), **tags},
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
    _tag(client, version, reasons | {PROMOTED: now()})
    client.delete_model_version_tag(model, number, ROLLED_BACK)
    if present:
        client.set_registered_model_alias(model, PREVIOUS, present.version)
    client.set_registered_model_alias(model, CHAMPION, number)
    settle(client, version)


def settle(client: MlflowClient, champion: ModelVersion) -> None:
    """Finishes a promotion: no longer a challenger, and in the history. Harmless to repeat."""
    challenger = aliased(client, champion.name, CHALLENGER)
    if challenger and challenger.version == champion.version:
        client.delete_registered_model_alias(champion.name, CHALLENGER)
    _remember("promote", champion, aliased(client, champion.name, PREVIOUS))


def challenge(client: MlflowClient, version: ModelVersion, reasons: dict[str, str]) -> None:
    """Makes the version the challenger, with the reasons why it is not the champion."""
    _tag(client, version, reasons)
    client.set_registered_model_alias(version.name, CHALLENGER, version.version)


def _tag(client: MlflowClient, version: ModelVersion, tags: dict[str, str]) -> None:
    for key, value in tags.items():
        client.set_model_version_tag(version.name, version.version, key, value)


def roll_back(client: MlflowClient, model: str) -> tuple[ModelVersion, ModelVersion] | None:
    """Makes the champion before the champion again: (the old one, the new one).

    None if there is no earlier champion that can be read and was not itself rolled back.
    """
    present = aliased(client, model, CHAMPION)
    earlier = _earlier(client, model, present)
    if not present or not earlier:
        return None
    target, *others = earlier
    client.set_model_version_tag(model, present.version, ROLLED_BACK, now())
    client.set_registered_model_alias(model, CHAMPION, target.version)
    if others:
        client.set_registered_model_alias(model, PREVIOUS, others[0].version)
    else:
        client.delete_registered_model_alias(model, PREVIOUS)
    _remember("rollback", target, present)
    return present, target


def _earlier(client: MlflowClient, model: str, present: ModelVersion | None) -> list[ModelVersion]:
    """Versions to go back to, the latest promotion first."""
    versions = client.search_model_versions(f"name = '{model}'")
    candidates = [
        version
        for version in versions
        if PROMOTED in version.tags
        and ROLLED_BACK not in version.tags
        and not (present and version.version == present.version)
    ]
    candidates.sort(key=lambda version: version.tags[PROMOTED], reverse=True)
    return [version for version in candidates if readable(version)]


def rolled_back(version: ModelVersion) -> str | None:
    """When the bundle was rolled back, if it was and was not promoted since.

    Asks the history too: it outlives a registry whose tags are lost.
    """
    bundle = identity(version)
    for line in reversed(_history()):
        if line["bundle"] == bundle:
            break
        if line["action"] == "rollback" and line["replaced"] == bundle:
            return str(line["at"])
    return version.tags.get(ROLLED_BACK)


def _history() -> list[dict[str, Any]]:
    """The lines of `paths.PROMOTIONS`; one that a crash has torn is left out."""
    lines = []
    text = paths.PROMOTIONS.read_text() if paths.PROMOTIONS.exists() else ""
    for line in text.splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            logger.warning("%s: not a line of JSON: %s", paths.PROMOTIONS, line)
    return lines


def _remember(action: str, version: ModelVersion, replaced: ModelVersion | None) -> None:
    """Adds a line to the history in git, which outlives the registry.

    A registry that is filled again with what the last line says is no news.
    """
    history, bundle = _history(), identity(version)
    if history and history[-1]["bundle"] == bundle:
        return
    line = {
        "action": action,
        "bundle": bundle,
        "replaced": identity(replaced) if replaced else None,
        "version": int(version.version),
        "at": now(),
    }
    with replacing(paths.PROMOTIONS) as temporary:
        temporary.write_text("".join(json.dumps(entry) + "\n" for entry in [*history, line]))


def now() -> str:
    """The time in UTC, ISO 8601, so exact that moves can be told apart and put in order."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
