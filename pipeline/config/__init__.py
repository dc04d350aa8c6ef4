"""The configuration: how it is composed, and `stage()`, which makes a stage's `main` a command."""

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.config import environment
from pipeline.config.errors import PipelineError
from pipeline.config.schema import Config, checked
from pipeline.config.startup import start_program
from pipeline.config.suggestions import did_you_mean

__all__ = ["Config", "PipelineError"]  # that other modules import from here

CONF = Path(__file__).parents[2] / "conf"
PARAMS = Path("params.yaml")


def settings(config: Config) -> dict[str, Any]:
    """Return the values that decide a run's weights, besides data and code; null has no effect."""
    plain: Any = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    without_effect = ("runs", "run", "name")
    kept = {key: _without_null(value) for key, value in plain.items() if key not in without_effect}
    changes = _without_null(plain["data"]["augmentation"])
    return kept | {"data": config.data.name} | ({"data_augmentation": changes} if changes else {})


def _without_null(value: object) -> object:
    if not isinstance(value, dict):
        return value
    return {key: inner for key, inner in value.items() if inner is not None}


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

    Hydra refuses `run=1` ("Config group override must be a string"), so the number is quoted. It
    is a PipelineError if an argument is neither an option nor `key=value`.
    """
    _require_pairs(typed)
    keys = {argument.partition("=")[0] for argument in typed}
    plain: Any = OmegaConf.to_container(picks)
    missing = [f"{key}={value}" for key, value in plain.items() if key not in keys]
    return [_quoted(argument) for argument in missing + typed]


def _require_pairs(typed: list[str]) -> None:
    for before, argument in pairwise(["", *typed, ""]):
        joined = f"{before} {argument}".strip()
        if before.endswith(",") or argument.startswith(","):
            without = f"; type {before}{argument}" if before and argument else ""
            raise PipelineError(f"{joined}: values are listed with commas and no spaces{without}")
        after_option = before.startswith("-") and before not in ("-m", "--multirun")
        if argument and "=" not in argument and argument[0] not in "-~" and not after_option:
            raise PipelineError(f"{argument}: a setting is typed as key=value")


def _require_known(typed: list[str], picks: Iterable[str]) -> None:
    run: Any = OmegaConf.to_container(OmegaConf.load(CONF / "run" / "1.yaml"))  # as all runs
    known = ["run", *picks, *flat(run)]
    for key, equals, _ in (argument.partition("=") for argument in typed):
        if not equals or key[0] in "-~+" or key.startswith(("data.", "hydra")):
            continue
        if not any(f"{name}.".startswith(f"{key}.") for name in known):
            raise PipelineError(f"no run has the setting {key}{did_you_mean(key, known)}")


def _require_composable(overrides: list[str]) -> None:
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            hydra.compose("config", overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise PipelineError(readable(error)) from None


def readable(error: Exception) -> str:
    """Return Hydra's message in one line, without its internals."""
    message = f"{error}: {error.__cause__}" if error.__cause__ else str(error)
    return " ".join(re.split(r"\n\s*(?:Config search path|full_key|See http)", message)[0].split())


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
            cfg = resolved(composed, HydraConfig.get().runtime.choices["run"])
            if place := _place(environment.dvc_stage(), cfg.runs):
                print(place, flush=True)
            main(cfg)
        except PipelineError as error:
            sys.exit(f"error: {error}")

    def command() -> None:
        start_program()
        register_schema()
        try:
            picks: Any = OmegaConf.load(PARAMS)
            completed = arguments(sys.argv[1:], picks)
            _require_known(sys.argv[1:], picks)
            if not any(word.startswith("-") for word in completed):  # --help takes what it gets
                _require_composable(completed)
        except PipelineError as error:
            sys.exit(f"error: {error}")
        sys.argv[1:] = completed
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)()

    return command


def _place(stage: str, runs: list[int]) -> str:
    """Return which stage of how many this is, in the order of `dvc.yaml`; empty if unknown."""
    if not stage:
        return ""
    content: Any = OmegaConf.to_container(OmegaConf.load("dvc.yaml"), resolve=False)
    names: list[str] = []
    for name, about in content["stages"].items():
        names += [f"{name}@{run}" for run in runs] if "matrix" in about else [name]
    return f"stage {names.index(stage) + 1} of {len(names)}" if stage in names else ""


def register_schema() -> None:
    """Register the `schema` of `conf/config.yaml`'s defaults list with Hydra."""
    ConfigStore.instance().store(name="schema", node=Config)
