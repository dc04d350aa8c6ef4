"""Model registry: versions of the bundle, their promotion to champion or challenger, and rollback.

Tags of the registered model keep the history of promotions.
"""

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

from serve.models import bundle_digest
from serve.models.predictor import BundleError, Predictor, each_precision

logger = logging.getLogger(__name__)

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
# Tags of a version. Services of earlier releases read the digests too: their meaning stays.
BUNDLE, LIKELIHOOD, INT8 = "bundle.digest", "bundle.likelihood", "bundle.int8"
PROMOTED, ROLLED_BACK = "promoted_at", "rolled_back"
_MOVE = "move."  # prefix of the registered model's tags that are its history
_ARTIFACT = "champion"  # folder of the MLflow run


def identity(version: ModelVersion) -> str:
    """Return the version's digests joined: one for each model file of its bundle."""
    return "+".join(version.tags[tag] for tag in (BUNDLE, LIKELIHOOD, INT8) if tag in version.tags)


def ensure_registered(
    client: MlflowClient, model: str, bundle: Path, run: Run, tags: dict[str, str]
) -> ModelVersion:
    """Return the version of `model` with this bundle; register it if there is none (idempotent).

    Lost or corrupt files of a version are uploaded again.
    """
    if not client.search_registered_models(f"name = '{model}'"):
        client.create_registered_model(model)
    digest = bundle_digest.model_digest(bundle)
    found = {
        LIKELIHOOD: bundle_digest.likelihood_digest(bundle),
        INT8: bundle_digest.int8_digest(bundle),
    }
    others = {tag: value for tag, value in found.items() if value}
    same_model = client.search_model_versions(f"name = '{model}' and tags.`{BUNDLE}` = '{digest}'")
    same = [v for v in same_model if {t: v.tags[t] for t in found if t in v.tags} == others]
    if same:
        version = max(same, key=lambda version: int(version.version))
        if not readable(version):
            client.log_artifacts(str(version.run_id), str(bundle), _ARTIFACT)
        return version
    client.log_artifacts(run.info.run_id, str(bundle), _ARTIFACT)
    return client.create_model_version(
        model,
        f"{run.info.artifact_uri}/{_ARTIFACT}",
        run.info.run_id,
        tags={BUNDLE: digest, **others, **tags},
    )


@contextmanager
def downloaded(version: ModelVersion) -> Iterator[Predictor]:
    """Download the version and open it, hashes verified.

    It is a BundleError, MlflowException or OSError if its files are lost or corrupt.
    """
    with tempfile.TemporaryDirectory() as folder:
        uri = f"models:/{version.name}/{version.version}"
        bundle = Path(mlflow.artifacts.download_artifacts(uri, dst_path=folder))
        yield each_precision(bundle)[0]


def readable(version: ModelVersion) -> bool:
    """Return whether the registry still has the version's files, and they are intact."""
    try:
        with downloaded(version):
            return True
    except (BundleError, MlflowException, OSError) as error:
        logger.warning("%s version %s cannot be read: %s", version.name, version.version, error)
        return False


def aliased(client: MlflowClient, model: str, alias: str) -> ModelVersion | None:
    """Return the version that the alias points at, or None."""
    for registered in client.search_registered_models(f"name = '{model}'"):
        if number := registered.aliases.get(alias):
            return client.get_model_version(model, str(number))
    return None


def now() -> str:
    """Return the time in UTC, ISO 8601, in milliseconds: promotions are ordered by it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def promote(client: MlflowClient, version: ModelVersion, reasons: dict[str, str]) -> None:
    """Make the version the champion; the one that it replaces becomes `previous`."""
    model, number = version.name, version.version
    present = aliased(client, model, CHAMPION)
    _tag(client, version, reasons | {PROMOTED: now()})
    client.delete_model_version_tag(model, number, ROLLED_BACK)
    if present:
        client.set_registered_model_alias(model, PREVIOUS, present.version)
    client.set_registered_model_alias(model, CHAMPION, number)
    finish(client, version)


def finish(client: MlflowClient, champion: ModelVersion) -> None:
    """Finish a promotion: no longer a challenger, and in the history (idempotent)."""
    challenger = aliased(client, champion.name, CHALLENGER)
    if challenger and challenger.version == champion.version:
        client.delete_registered_model_alias(champion.name, CHALLENGER)
    record(client, "promote", champion, aliased(client, champion.name, PREVIOUS))


def challenge(client: MlflowClient, version: ModelVersion, reasons: dict[str, str]) -> None:
    """Make the version the challenger; tags hold the reasons why it is not the champion."""
    _tag(client, version, reasons)
    client.set_registered_model_alias(version.name, CHALLENGER, version.version)


def roll_back(client: MlflowClient, model: str) -> tuple[ModelVersion | None, ModelVersion] | None:
    """Make the champion before the champion again and return both, the replaced one first.

    If there is no champion, because somebody deleted its alias, the last one comes back. None if no
    earlier champion is left that can be read and was not itself rolled back.
    """
    present = aliased(client, model, CHAMPION)
    candidates = [
        version
        for version in client.search_model_versions(f"name = '{model}'")
        if PROMOTED in version.tags
        and ROLLED_BACK not in version.tags
        and not (present and version.version == present.version)
    ]
    candidates.sort(key=lambda version: version.tags[PROMOTED], reverse=True)
    earlier = list(filter(readable, candidates))
    if not earlier:
        return None
    if present:
        client.set_model_version_tag(model, present.version, ROLLED_BACK, now())
    client.set_registered_model_alias(model, CHAMPION, earlier[0].version)
    if earlier[1:]:
        client.set_registered_model_alias(model, PREVIOUS, earlier[1].version)
    else:
        client.delete_registered_model_alias(model, PREVIOUS)
    record(client, "rollback", earlier[0], present)
    return present, earlier[0]


def _tag(client: MlflowClient, version: ModelVersion, tags: dict[str, str]) -> None:
    """Set the tags; a gate that is no longer checked loses its earlier result."""
    for key in version.tags:
        if key.startswith("gate.") and key not in tags:
            client.delete_model_version_tag(version.name, version.version, key)
    for key, value in tags.items():
        client.set_model_version_tag(version.name, version.version, key, value)


def history(client: MlflowClient, model: str) -> list[dict[str, Any]]:
    """Return the moves of the alias `champion`, the oldest first."""
    found = client.search_registered_models(f"name = '{model}'")
    tags = {key: value for each in found for key, value in each.tags.items()}
    return [json.loads(tags[key]) for key in sorted(tags) if key.startswith(_MOVE)]


def record(
    client: MlflowClient, action: str, version: ModelVersion, replaced: ModelVersion | None
) -> None:
    """Add a move to the history, unless it is the last one already (idempotent)."""
    moves, bundle = history(client, version.name), identity(version)
    if moves and moves[-1]["bundle"] == bundle:
        return
    at = now()
    move = {
        "action": action,
        "bundle": bundle,
        "replaced": identity(replaced) if replaced else None,
        "version": int(version.version),
        "at": at,
    }
    key = _MOVE + at.removesuffix("+00:00")  # MLflow refuses a plus sign
    client.set_registered_model_tag(version.name, key, json.dumps(move))
