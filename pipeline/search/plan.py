"""A checked search: `conf/search/<name>.yaml`, compared with the run whose settings it varies."""

import hashlib
import json
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

from hydra import compose
from hydra.errors import HydraException
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from pipeline.config import CONF, Config, PipelineError, flat, register_schema, resolved, settings
from pipeline.config.data_schema import Data
from pipeline.config.section import Section, require
from pipeline.config.suggestions import did_you_mean

_KEYS = ("low", "high", "log", "step", "choices")  # of a dimension of the space
_DIGITS = 3  # significant digits: a rate of 0.00183 is as good as 0.001834715


class Metric(Enum):
    """The metric that a search improves, by its name in `model.json` and in the curves."""

    val_loss = "val_loss"
    val_accuracy = "val_accuracy"

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        """Optuna's name for the better direction."""
        return "minimize" if self is Metric.val_loss else "maximize"


@dataclass
class Pruner(Section):
    """Settings of the median pruner, which stops a trial worse than the median of earlier ones."""

    prefix = "pruner."

    startup_trials: int = MISSING
    warmup_epochs: int = MISSING


@dataclass
class Search(Section):
    """A file of `conf/search/` with the picks of `params.yaml`.

    `fixed` and `space` are nested as in `conf/run/<run>.yaml`. A leaf of `space` is `{choices}`,
    or `{low, high}` with an optional `log` or `step`.
    """

    prefix = ""

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
        """Refuse also an empty search space."""
        super().__post_init__()
        require(bool(self.space), "space", "a run's keys with {low, high} or {choices}", "empty")

    def picks(self) -> dict[str, Any]:
        """Return the picks of `params.yaml` that stages take."""
        return {"data": self.data.name, "seed": self.seed, "threads": self.threads}


@dataclass(frozen=True)
class Plan:
    """A checked search; `study` is its name and a digest of everything that decides its outcome."""

    study: str
    search: Search
    base: Config
    fixed: dict[str, Any]
    space: dict[str, BaseDistribution]

    def settings(self, sampled: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of a trial: fixed values, and sampled ones to three digits."""
        rounded = {
            key: float(f"{value:.{_DIGITS}g}")
            if isinstance(self.space[key], FloatDistribution)
            else value
            for key, value in sampled.items()
        }
        return self.fixed | rounded

    def present(self) -> dict[str, Any]:
        """Return the run's own values, if the space has them: the first trial to beat."""
        own = flat(settings(self.base))
        return {key: own[key] for key, among in self.space.items() if _has(among, own[key])}


def make_plan(name: str, search: Search) -> Plan:
    """Check the search `name` against its run; a PipelineError names a wrong key or value."""
    keys = list(flat(_plain(OmegaConf.load(CONF / "run" / f"{search.run}.yaml"))))
    fixed = flat(search.fixed)
    space = dict(_dimensions(search.space))
    for section, names in (("fixed", fixed), ("space", space)):
        for key in names:
            if key not in keys:
                raise PipelineError(f"{section}.{key}: no run has {key}{did_you_mean(key, keys)}")
    for key in fixed.keys() & space.keys():
        raise PipelineError(f"{key} is both under fixed and under space: take one out")
    # The run's own configuration, with Hydra's search path of this process.
    overrides = [f"run='{search.run}'", f"runs=[{search.run}]"]
    overrides += [f"{key}={value}" for key, value in search.picks().items()]
    register_schema()
    try:
        composed = compose("config", overrides)
    except HydraException as error:
        raise PipelineError(str(error)) from error
    for key, value in fixed.items():
        with _named(f"fixed.{key}"):
            OmegaConf.update(composed, key, value)
    with _named("fixed"):
        base = resolved(composed, str(search.run))
    # Stages take only the name of the data set, so its values cannot be changed.
    require(base.data == search.data, "data", "as conf/data/ has it", "changed")
    for key, dimension in space.items():
        for value in _extremes(dimension):
            with _named(f"space.{key}"):
                trial = composed.copy()
                OmegaConf.update(trial, key, value)
                resolved(trial, str(search.run))
    return Plan(_study(name, search, base, space), search, base, fixed, space)


def _dimensions(
    space: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, BaseDistribution]]:
    """Yield each key that the nested `space` varies, with its distribution.

    A leaf that is neither `{low, high}` nor `{choices}`, or cannot be sampled, is a PipelineError.
    """
    for name, node in space.items():
        key = prefix + name
        if not isinstance(node, Mapping):
            hint = f"put a value for all trials under fixed.{key}"
            raise PipelineError(f"space.{key} must be {{low, high}} or {{choices}}: {hint}")
        if node.keys() & set(_KEYS):
            yield key, _distribution(f"space.{key}", node)
        else:
            yield from _dimensions(node, f"{key}.")


def _distribution(field: str, node: Mapping[str, Any]) -> BaseDistribution:
    """Return Optuna's distribution; in its words a PipelineError says what is wrong."""
    for name in node.keys() - set(_KEYS):
        raise PipelineError(f"{field} has no {name}{did_you_mean(name, _KEYS)}")
    numbers = [node[name] for name in ("low", "high", "step") if name in node]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # if high - low is no multiple of the step
            if "choices" in node:
                return CategoricalDistribution(**node)
            if all(isinstance(number, int) for number in numbers):
                return IntDistribution(**node)
            return FloatDistribution(**node)
    except (TypeError, ValueError, UserWarning) as error:
        raise PipelineError(f"{field}: {error}") from error


def _extremes(dimension: BaseDistribution) -> list[Any]:
    """Return the bounds of a range, or all choices: if these are valid, every value is."""
    if isinstance(dimension, CategoricalDistribution):
        return list(dimension.choices)
    assert isinstance(dimension, IntDistribution | FloatDistribution)
    return [dimension.low, dimension.high]


def _has(dimension: BaseDistribution, value: Any) -> bool:  # noqa: ANN401  of any key of a run
    """Return whether the value can be sampled."""
    if isinstance(dimension, CategoricalDistribution):
        return value in dimension.choices
    assert isinstance(dimension, IntDistribution | FloatDistribution)
    steps = (value - dimension.low) / dimension.step if dimension.step else 0
    whole = math.isclose(steps, round(steps), abs_tol=1e-9)
    return dimension.low <= value <= dimension.high and whole


@contextmanager
def _named(field: str) -> Iterator[None]:
    """Name the field of the search in an error."""
    try:
        yield
    except (PipelineError, OmegaConfBaseException) as error:
        raise PipelineError(f"{field}: {str(error).splitlines()[0]}") from error


def _study(name: str, search: Search, base: Config, space: dict[str, BaseDistribution]) -> str:
    """Return the study's name: another space, run or data set is another study.

    More trials are not, nor are other values in the run of the keys that the space varies.
    """
    deciding = [
        search.run,
        search.metric.value,
        {key: value for key, value in flat(settings(base)).items() if key not in space},
        _plain(OmegaConf.structured(base.data)),
        {key: repr(dimension) for key, dimension in space.items()},
    ]
    digest = hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()
    return f"{name}-{search.data.name}-{digest[:6]}"


def _plain(node: object) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(node, enum_to_str=True)
    return dict(plain)
