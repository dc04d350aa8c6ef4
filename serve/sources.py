"""Sources: where the models that are served come from, by `MODELS` or `MODEL_URI`."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

MODEL_NAME = "mnist-classifier"

_REGISTERED = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")
SERVABLE = rf"{_REGISTERED.pattern}|(?!models:)(?!.*://).*"  # a URI: registered, or a folder
NAME = r"(?a:[A-Za-z0-9][\w.-]{0,63})"  # of a model


class Source(NamedTuple):
    """A model to serve: the name in paths and answers, where it is, and where its state is kept.

    `variable`: the one that names it.
    """

    name: str
    uri: str
    state: Path
    default: bool
    variable: str

    @property
    def registered(self) -> re.Match[str] | None:
        """Match with `name` and `alias` or `version` of the registered model; None for a folder."""
        return _REGISTERED.fullmatch(self.uri)

    def series(self, version: str) -> str:
        """Return the value of `model_version` in metrics, distinct from those of other models."""
        return version if self.default else f"{self.name}/{version}"

    @property
    def moves(self) -> bool:
        """Whether an alias is followed, which may move to another version."""
        return bool(self.registered and self.registered["alias"])


def sources(models: Sequence[str], model_uri: str, state: Path) -> tuple[Source, ...]:
    """Return the models to serve, the default first, which keeps its state in `state` itself.

    `models`: names of registered models, or NAME=URI. Without any it is that of `model_uri`, where
    a folder has the default name.
    """
    variable = "MODELS" if models else "MODEL_URI"
    given = [each.partition("=")[::2] for each in models]
    if not given:
        registered = _REGISTERED.fullmatch(model_uri)
        given = [(registered["name"] if registered else MODEL_NAME, model_uri)]
    found = []
    for place, (name, uri) in enumerate(given):
        folder = state / "served" / name if place else state
        uri = uri or f"models:/{name}@champion"
        found.append(Source(name, uri, folder, not place, variable))
    return tuple(found)
