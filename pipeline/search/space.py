"""The search space: each key's range or choices, as `conf/search/<name>.yaml` writes them."""

from __future__ import annotations

import math
import warnings
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
    whole = math.isclose(steps, round(steps), abs_tol=1e-9)
    return dimension.low <= value <= dimension.high and whole
