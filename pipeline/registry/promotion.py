"""Promotion to champion or challenger, and the history of promotions that Git tracks."""

from __future__ import annotations

import json
import logging
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from pipeline.config import paths
from pipeline.registry.versions import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    PROMOTED,
    ROLLED_BACK,
    aliased,
    identity,
    now,
)
from pipeline.storage.files import replacing

logger = logging.getLogger(__name__)


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
    record("promote", champion, aliased(client, champion.name, PREVIOUS))


def challenge(client: MlflowClient, version: ModelVersion, reasons: dict[str, str]) -> None:
    """Make the version the challenger; tags hold the reasons why it is not the champion."""
    _tag(client, version, reasons)
    client.set_registered_model_alias(version.name, CHALLENGER, version.version)


def _tag(client: MlflowClient, version: ModelVersion, tags: dict[str, str]) -> None:
    for key, value in tags.items():
        client.set_model_version_tag(version.name, version.version, key, value)


def history() -> list[dict[str, Any]]:
    """Return the entries of `reports/promotions.jsonl`, the oldest first, without torn lines."""
    entries = []
    text = paths.PROMOTIONS.read_text() if paths.PROMOTIONS.exists() else ""
    for line in text.splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:
            logger.warning("%s: not a line of JSON: %s", paths.PROMOTIONS, line)
    return entries


def record(action: str, version: ModelVersion, replaced: ModelVersion | None) -> None:
    """Add an entry to the history, which outlives the registry.

    Nothing is added if the last entry names the same bundle: a new registry is filled again.
    """
    entries, bundle = history(), identity(version)
    if entries and entries[-1]["bundle"] == bundle:
        return
    entry = {
        "action": action,
        "bundle": bundle,
        "replaced": identity(replaced) if replaced else None,
        "version": int(version.version),
        "at": now(),
    }
    with replacing(paths.PROMOTIONS) as temporary:
        temporary.write_text("".join(json.dumps(each) + "\n" for each in [*entries, entry]))
