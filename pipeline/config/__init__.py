"""The configuration: how it is composed, and `stage()`, which makes a stage's `main` a command."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from pipeline.config.errors import PipelineError
from pipeline.config.schema import (
    CLASSES,
    SIDE,
    Augmentation,
    Config,
    Data,
    Feedback,
    Format,
    Model,
    Schedule,
    checked,
)
from pipeline.config.startup import start_program

# Names that other modules import from here.
__all__ = [
    "CLASSES",
    "SIDE",
    "Augmentation",
    "Config",
    "Data",
    "Feedback",
    "Format",
    "Model",
    "PipelineError",
    "Schedule",
    "checked",
]

CONF = Path(__file__).parents[2] / "conf"
PARAMS = Path("params.yaml")


def settings(config: Config) -> dict[str, Any]:
    """Return the values that decide a run's weights, besides data and code."""
    plain: Any = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    without_effect = ("runs", "run", "name")
    kept = {key: value for key, value in plain.items() if key not in without_effect}
    return kept | {"data": config.data.name}


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return `{"optimizer": {"name": …}}` as `{"optimizer.name": …}`."""
    plain: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            plain |= flat(value, f"{prefix}{key}.")
        else:
            plain[prefix + key] = value
    return plain


def short(keys: Iterable[str]) -> dict[str, str]:
    """Return the last part of each dotted key; the key itself where several end alike."""
    last = {key: key.rpartition(".")[2] for key in keys}
    endings = Counter(last.values())
    return {key: key if endings[end] > 1 else end for key, end in last.items()}


def arguments(typed: list[str], picks: DictConfig) -> list[str]:
    """Return overrides for Hydra: the typed ones, completed by the picks of `params.yaml`.

    Hydra refuses `run=1` ("Config group override must be a string"), so the number is quoted.
    """
    keys = {argument.partition("=")[0] for argument in typed}
    plain: Any = OmegaConf.to_container(picks)
    missing = [f"{key}={value}" for key, value in plain.items() if key not in keys]
    return [_quoted(argument) for argument in typed + missing]


def _quoted(argument: str) -> str:
    key, _, choice = argument.partition("=")
    if key != "run":
        return argument
    return "run=" + ",".join(f"'{c}'" if c.isdigit() else c for c in choice.split(","))


def resolved(composed: DictConfig, run: str) -> Config:
    """Return the composed configuration of a run as an object, like `checked`."""
    composed.run = int(run)
    return checked(composed, Config, "conf/ or params.yaml")


def stage(main: Callable[[Config], None]) -> Callable[[], None]:
    """Return a command that runs `main` on the configuration, with `key=value` overrides.

    It prints a PipelineError as one message, without a traceback.
    """

    def job(composed: DictConfig) -> None:
        try:
            main(resolved(composed, HydraConfig.get().runtime.choices["run"]))
        except PipelineError as error:
            sys.exit(f"error: {error}")

    def command() -> None:
        start_program()
        register_schema()
        sys.argv[1:] = arguments(sys.argv[1:], OmegaConf.load(PARAMS))  # type: ignore[arg-type]
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)()

    return command


def register_schema() -> None:
    """Register the `schema` of `conf/config.yaml`'s defaults list with Hydra."""
    ConfigStore.instance().store(name="schema", node=Config)
