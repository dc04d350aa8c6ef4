"""What a search varies: each key's range or choices, as `conf/search/<name>.yaml` writes them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from pipeline.config import PipelineError

_KEYS = ("low", "high", "log", "step", "choices")


def require(condition: bool, field: str, rule: str, value: object) -> None:
    """Refuses a value in words that name the field."""
    if not condition:
        raise PipelineError(f"{field} must be {rule}, not {value}")


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint at what may have been meant; empty if nothing is like it."""
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.4)
    return f"; did you mean {near[0]}?" if near else ""


def dimensions(
    space: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, BaseDistribution]]:
    """Each key of a run that the nested `space` varies, with what it may be.

    Raises:
        PipelineError: a leaf that is neither `{low, high}` nor `{choices}`, or cannot be sampled.
    """
    for name, node in space.items():
        key = prefix + name
        if not isinstance(node, Mapping):
            hint = f"a value for all trials is fixed.{key}"
            raise PipelineError(f"space.{key} must be {{low, high}} or {{choices}}: {hint}")
        if node.keys() & set(_KEYS):
            yield key, _distribution(f"space.{key}", node)
        else:
            yield from dimensions(node, f"{key}.")


def _distribution(field: str, node: Mapping[str, Any]) -> BaseDistribution:
    for name in node.keys() - set(_KEYS):
        raise PipelineError(f"{field} has no {name}{nearest(name, _KEYS)}")
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
    """The values between which, or of which, the others are."""
    if isinstance(dimension, CategoricalDistribution):
        return list(dimension.choices)
    assert isinstance(dimension, IntDistribution | FloatDistribution)
    return [dimension.low, dimension.high]


def has(dimension: BaseDistribution, value: Any) -> bool:  # noqa: ANN401  of any key of a run
    """Whether the value can be sampled."""
    if isinstance(dimension, CategoricalDistribution):
        return value in dimension.choices
    assert isinstance(dimension, IntDistribution | FloatDistribution)
    steps = (value - dimension.low) / dimension.step if dimension.step else 0
    return dimension.low <= value <= dimension.high and _is_whole(steps)
