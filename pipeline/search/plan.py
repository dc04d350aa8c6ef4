"""A search that can start: `conf/search/<name>.yaml`, held against the run that it is for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

from hydra import compose
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from optuna.distributions import BaseDistribution, FloatDistribution

from pipeline.config import (
    CONF,
    Config,
    Data,
    PipelineError,
    flat,
    register_schema,
    resolved,
    settings,
)
from pipeline.search import space as spaces
from pipeline.search.space import nearest, require

_DIGITS = 3  # significant ones: a rate of 0.00183 is as good as one of 0.001834715


class Metric(Enum):
    """What a search improves, by its name in `model.json` and in the curves."""

    val_loss = "val_loss"
    val_accuracy = "val_accuracy"

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        """Where it is better."""
        return "minimize" if self is Metric.val_loss else "maximize"


@dataclass
class Pruner:
    """When a trial may be stopped for being worse than the median of those before it."""

    startup_trials: int = MISSING
    warmup_epochs: int = MISSING

    def __post_init__(self) -> None:
        """Refuses negative counts."""
        for field in ("startup_trials", "warmup_epochs"):
            value = getattr(self, field)
            require(value >= 0, f"pruner.{field}", "0 or positive", value)


@dataclass
class Search:
    """A file of `conf/search/` with the picks of `params.yaml`.

    `fixed` and `space` are nested as in `conf/run/<run>.yaml`; a leaf of `space` is
    `{low, high}`, with `log` or `step` if need be, or `{choices}`.
    """

    data: Data = MISSING
    seed: int = MISSING
    threads: int = MISSING
    run: int = MISSING
    metric: Metric = MISSING
    trials: int = MISSING
    processes: int = MISSING
    pruner: Pruner = MISSING
    experiment: bool = MISSING
    fixed: dict[str, Any] = MISSING
    space: dict[str, Any] = MISSING

    def __post_init__(self) -> None:
        """Refuses counts that cannot be, and a search of nothing."""
        for field in ("trials", "processes"):
            require(getattr(self, field) > 0, field, "positive", getattr(self, field))
        require(bool(self.space), "space", "a run's keys with {low, high} or {choices}", "empty")


@dataclass(frozen=True)
class Plan:
    """A search that can start: `study` names it and all that decides its outcome."""

    study: str
    search: Search
    base: Config
    fixed: dict[str, Any]
    space: dict[str, BaseDistribution]

    def settings(self, sampled: Mapping[str, Any]) -> dict[str, Any]:
        """The run's keys with the values that a trial trains with."""
        rounded = {
            key: float(f"{value:.{_DIGITS}g}") if self._is_continuous(key) else value
            for key, value in sampled.items()
        }
        return self.fixed | rounded

    def present(self) -> dict[str, Any]:
        """The run's own values, as far as the space has them: what a search must beat."""
        own = flat(settings(self.base))
        return {
            key: own[key]
            for key, dimension in self.space.items()
            if spaces.has(dimension, own[key])
        }

    def _is_continuous(self, key: str) -> bool:
        return isinstance(self.space[key], FloatDistribution)

    def picks(self) -> dict[str, Any]:
        """What else a stage is told."""
        return picks(self.search)

    def epochs(self, sampled: Mapping[str, Any]) -> int:
        """How many epochs a trial is to train."""
        return int(self.settings(sampled).get("epochs", self.base.epochs))


def picks(search: Search) -> dict[str, Any]:
    """What `params.yaml` says to a stage, unless it is typed."""
    return {"data": search.data.name, "seed": search.seed, "threads": search.threads}


def made(name: str, search: Search) -> Plan:
    """The search `name`, checked: what it varies, a run can be.

    Raises:
        PipelineError: a key or value that no run can have; the message names it.
    """
    composed = _composed(search)
    keys = list(flat(_plain(OmegaConf.load(CONF / "run" / f"{search.run}.yaml"))))
    fixed = flat(search.fixed)
    space = dict(spaces.dimensions(search.space))
    for section, names in (("fixed", fixed), ("space", space)):
        for key in names:
            if key not in keys:
                raise PipelineError(f"{section}.{key}: no run has {key}{nearest(key, keys)}")
    for key in fixed.keys() & space.keys():
        raise PipelineError(f"{key} is both under fixed and under space: take one out")
    for key, value in fixed.items():
        _set(composed, key, value, f"fixed.{key}")
    base = _checked(composed, search.run, "fixed")
    # The stages are told the name alone.
    require(base.data == search.data, "data", "as conf/data/ has it", "changed")
    for key, dimension in space.items():
        for value in spaces.extremes(dimension):
            trial = composed.copy()
            _set(trial, key, value, f"space.{key}")
            _checked(trial, search.run, f"space.{key}")
    return Plan(_name(name, search, base, space), search, base, fixed, space)


def _composed(search: Search) -> DictConfig:
    """The run's own configuration, from where Hydra found the search's."""
    overrides = [f"run='{search.run}'", f"runs=[{search.run}]"]
    overrides += [f"{key}={value}" for key, value in picks(search).items()]
    register_schema()
    try:
        return compose("config", overrides)
    except HydraException as error:
        raise PipelineError(str(error)) from error


def _set(composed: DictConfig, key: str, value: object, field: str) -> None:
    try:
        OmegaConf.update(composed, key, value)
    except OmegaConfBaseException as error:
        raise PipelineError(f"{field}: {str(error).splitlines()[0]}") from error


def _checked(composed: DictConfig, run: int, field: str) -> Config:
    try:
        return resolved(composed, str(run))
    except PipelineError as error:
        raise PipelineError(f"{field}: {error}") from error


def _name(name: str, search: Search, base: Config, space: dict[str, BaseDistribution]) -> str:
    """Another space, run or data set is another study; more trials are not.

    Nor is another start: what the run says of the keys that the space varies.
    """
    fixed = {key: value for key, value in flat(settings(base)).items() if key not in space}
    deciding = [
        search.run,
        search.metric.value,
        fixed,
        _plain(OmegaConf.structured(base.data)),
        {key: repr(dimension) for key, dimension in space.items()},
    ]
    digest = hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()
    return f"{name}-{search.data.name}-{digest[:6]}"


def _plain(node: object) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(node, enum_to_str=True)
    return dict(plain)
