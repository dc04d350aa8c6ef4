"""The state of the models in service, for `/health` and `/metrics`."""

from __future__ import annotations

import shutil
from collections.abc import Iterable

from serve.models.loaded import Model
from serve.prediction.served import Served
from serve.settings import Settings
from serve.telemetry.state_gauges import ModelState, State


def reason(served: Iterable[Served]) -> str:
    """Return why a model is not in service, or perhaps not its newest version; empty if all are."""
    named = [
        each.reason if each.source.default else f"{each.name}: {each.reason}"
        for each in served
        if each.reason
    ]
    return "; ".join(named)


def state(served: Iterable[Served], settings: Settings, ready: bool) -> State:
    """Return the state of the models in service, and of the disk, for `/metrics`."""
    models = [each.models for each in served]
    return State(
        ready,
        bool(reason(served)),
        [_described(each.current) for each in models if each.current],
        checked=min((each.checked for each in models if each.checked), default=0),
        free=shutil.disk_usage(settings.state_dir).free,
        commit=settings.commit,
    )


def _described(model: Model) -> ModelState:
    labels = {"model_name": model.name, "model_version": model.series}
    labels |= {"precision": model.predictor.precision}
    labels |= {name: str(model.description.get(name, "")) for name in ("run", "sha256")}
    return ModelState(labels, model.created, model.shares)
