"""Rollback to the champion before, and the memory of what was rolled back."""

from __future__ import annotations

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from pipeline.registry import versions
from pipeline.registry.versions import CHAMPION, PREVIOUS, PROMOTED, ROLLED_BACK


def roll_back(client: MlflowClient, model: str) -> tuple[ModelVersion, ModelVersion] | None:
    """Make the champion before the champion again and return both, the replaced one first.

    None if no earlier champion is left that can be read and was not itself rolled back.
    """
    present = versions.aliased(client, model, CHAMPION)
    if not present:
        return None
    candidates = [
        version
        for version in client.search_model_versions(f"name = '{model}'")
        if PROMOTED in version.tags
        and ROLLED_BACK not in version.tags
        and version.version != present.version
    ]
    candidates.sort(key=lambda version: version.tags[PROMOTED], reverse=True)
    earlier = list(filter(versions.readable, candidates))
    if not earlier:
        return None
    client.set_model_version_tag(model, present.version, ROLLED_BACK, versions.now())
    client.set_registered_model_alias(model, CHAMPION, earlier[0].version)
    if earlier[1:]:
        client.set_registered_model_alias(model, PREVIOUS, earlier[1].version)
    else:
        client.delete_registered_model_alias(model, PREVIOUS)
    versions.record("rollback", earlier[0], present)
    return present, earlier[0]


def rolled_back_at(version: ModelVersion) -> str | None:
    """Return when the bundle was rolled back, if it was and was not promoted since.

    The history is asked first: it outlives a registry whose tags are lost.
    """
    bundle = versions.identity(version)
    for entry in reversed(versions.history()):
        if entry["bundle"] == bundle:
            break
        if entry["action"] == "rollback" and entry["replaced"] == bundle:
            return str(entry["at"])
    return version.tags.get(ROLLED_BACK)
