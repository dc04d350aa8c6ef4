"""Rollback to the champion before, and the memory of what was rolled back."""

from __future__ import annotations

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from pipeline.registry.promotion import history, record
from pipeline.registry.versions import (
    CHAMPION,
    PREVIOUS,
    PROMOTED,
    ROLLED_BACK,
    aliased,
    identity,
    now,
    readable,
)


def roll_back(client: MlflowClient, model: str) -> tuple[ModelVersion, ModelVersion] | None:
    """Make the champion before the champion again and return both, the replaced one first.

    None if no earlier champion is left that can be read and was not itself rolled back.
    """
    present = aliased(client, model, CHAMPION)
    earlier = _earlier_champions(client, model, present)
    if not present or not earlier:
        return None
    target, *others = earlier
    client.set_model_version_tag(model, present.version, ROLLED_BACK, now())
    client.set_registered_model_alias(model, CHAMPION, target.version)
    if others:
        client.set_registered_model_alias(model, PREVIOUS, others[0].version)
    else:
        client.delete_registered_model_alias(model, PREVIOUS)
    record("rollback", target, present)
    return present, target


def _earlier_champions(
    client: MlflowClient, model: str, present: ModelVersion | None
) -> list[ModelVersion]:
    """Return the versions to go back to, the latest promotion first."""
    candidates = [
        version
        for version in client.search_model_versions(f"name = '{model}'")
        if PROMOTED in version.tags
        and ROLLED_BACK not in version.tags
        and not (present and version.version == present.version)
    ]
    candidates.sort(key=lambda version: version.tags[PROMOTED], reverse=True)
    return [version for version in candidates if readable(version)]


def rolled_back_at(version: ModelVersion) -> str | None:
    """Return when the bundle was rolled back, if it was and was not promoted since.

    The history is asked first: it outlives a registry whose tags are lost.
    """
    bundle = identity(version)
    for entry in reversed(history()):
        if entry["bundle"] == bundle:
            break
        if entry["action"] == "rollback" and entry["replaced"] == bundle:
            return str(entry["at"])
    return version.tags.get(ROLLED_BACK)
