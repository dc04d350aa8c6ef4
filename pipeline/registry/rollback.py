"""Rollback to the champion before, and the memory of what was rolled back."""

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from pipeline.registry import versions
from pipeline.registry.versions import CHAMPION, PREVIOUS, PROMOTED, ROLLED_BACK


def roll_back(client: MlflowClient, model: str) -> tuple[ModelVersion | None, ModelVersion] | None:
    """Make the champion before the champion again and return both, the replaced one first.

    If there is no champion, because somebody deleted its alias, the last one comes back. None if no
    earlier champion is left that can be read and was not itself rolled back.
    """
    present = versions.aliased(client, model, CHAMPION)
    candidates = [
        version
        for version in client.search_model_versions(f"name = '{model}'")
        if PROMOTED in version.tags
        and ROLLED_BACK not in version.tags
        and not (present and version.version == present.version)
    ]
    candidates.sort(key=lambda version: version.tags[PROMOTED], reverse=True)
    earlier = list(filter(versions.readable, candidates))
    if not earlier:
        return None
    if present:
        client.set_model_version_tag(model, present.version, ROLLED_BACK, versions.now())
    client.set_registered_model_alias(model, CHAMPION, earlier[0].version)
    if earlier[1:]:
        client.set_registered_model_alias(model, PREVIOUS, earlier[1].version)
    else:
        client.delete_registered_model_alias(model, PREVIOUS)
    versions.record(client, "rollback", earlier[0], present)
    return present, earlier[0]
