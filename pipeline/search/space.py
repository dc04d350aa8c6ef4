"""The search space: each key's range or choices, as `conf/search/<name>.yaml` writes them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from pipeline.config import PipelineError
from pipeline.config.suggestions import did_you_mean

_KEYS = ("low", "high", "log", "step", "choices")


def require(condition: bool, field: str, rule: str, value: object) -> None:
    """Refuse a value that breaks a rule, with a message that names the field."""
    if not condition:
        raise PipelineError(f"{field} must be {rule}, not {value}")


def dimensions(
    space: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, BaseDistribution]]:
    """Yield each key that the nested `space` varies, with its distribution.

    Raises:
        PipelineError: a leaf is neither `{low, high}` nor `{choices}`, or cannot be sampled.
    """
    for name, node in space.items():
        key = prefix + name
        if not isinstance(node, Mapping):
            hint = f"put a value for all trials under fixed.{key}"
            raise PipelineError(f"space.{key} must be {{low, high}} or {{choices}}: {hint}")
        if node.keys() & set(_KEYS):
            yield key, _distribution(f"space.{key}", node)
        else:
            yield from dimensions(node, f"{key}.")


def _distribution(field: str, node: Mapping[str, Any]) -> BaseDistribution:
    for name in node.keys() - set(_KEYS):
        raise PipelineError(f"{field} has no {name}{did_you_mean(name, _KEYS)}")
    if "choices" in node:
        return _choice(field, node)
    for name in ("low", "high"):
        require(_is_number(node.get(name)), f"{field}.{name}", "a number", node.get(name))
    low, high, step = node["low"], node["high"], node.get("step")
    log = node.get("log", False)
    require(low < high, f"{field}.low", f"below high ({high})", low)
    require(isinstance(log, bool), f"{field}.log", "true or false", log)
    require(not log or low > 0, f"{field}.low", "positive on a logarithmic scale", low)
    if step is not None:
        require(_is_number(step) and step > 0, f"{field}.step", "positive", step)
        require(not log, f"{field}.step", "left out on a logarithmic scale", step)
        require(_is_whole((high - low) / step), f"{field}.step", "a part of high - low", step)
    if all(isinstance(value, int) for value in (low, high, step or 1)):
        return IntDistribution(low, high, log=log, step=step or 1)
    return FloatDistribution(low, high, log=log, step=step)


def _choice(field: str, node: Mapping[str, Any]) -> CategoricalDistribution:
    choices = node["choices"]
    require(len(node) == 1, field, "either {low, high} or {choices}", dict(node))
    plain = isinstance(choices, list) and not any(isinstance(c, list | Mapping) for c in choices)
    require(plain and bool(choices), f"{field}.choices", "a list of values", choices)
    return CategoricalDistribution(choices)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(number: float) -> bool:
    return math.isclose(number, round(number), abs_tol=1e-9)


def extremes(dimension: BaseDistribution) -> list[Any]:
    """Return the bounds of a range, or all choices: if these are valid, every value is."""
    if isinstance(dimension, CategoricalDistribution):
        return list(dimension.choices)
    assert isinstance(dimension, IntDistribution | FloatDistribution)
    return [dimension.low, dimension.high]


def has(dimension: BaseDistribution, value: Any) -> bool:  # noqa: ANN401  of any key of a run
    """Return whether the value can be sampled."""
    if isinstance(dimension, CategoricalDistribution):
        return value in dimension.choices
    assert isinstance(dimension, IntDistribution | FloatDistribution)
    steps = (value - dimension.low) / dimension.step if dimension.step else 0
    return dimension.low <= value <= dimension.high and _is_whole(steps)
