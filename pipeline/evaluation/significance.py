"""Statistical significance: is the difference between two models real, or could it be chance?

SciPy's statistics take 0.7 s to import, so only the functions that need them do.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CONFIDENCE_LEVEL = 0.95  # of every interval; a smaller p than 1 - this is called significant


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the interval that holds the true proportion in 95 of 100 samples (Wilson, 1927)."""
    from scipy.stats import binomtest

    interval = binomtest(successes, trials).proportion_ci(CONFIDENCE_LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


class Discordance(NamedTuple):
    """How many images only one of two models reads right."""

    only_first: int
    only_second: int
    p: float  # how probable so large a difference is between equally good models


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Discordance:
    """Compare two models on the same images; (n,) each: where the model is right.

    The exact two-sided test of McNemar, "Note on the sampling error of the difference between
    correlated proportions", Psychometrika 1947.
    """
    from scipy.stats import binomtest

    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    discordant = only_first + only_second
    p = float(binomtest(only_first, discordant).pvalue) if discordant else 1.0
    return Discordance(only_first, only_second, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p values corrected for multiple tests (Holm, Scand. J. Statistics 1979)."""
    corrected, least = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(np.argsort(p_values, kind="stable")):
        least = max(least, (len(p_values) - rank) * p_values[place])
        corrected[place] = min(least, 1.0)
    return corrected


def is_significant(p: float) -> bool:
    """Return whether a difference with this p, corrected for multiple tests, is called real."""
    return p < 1 - CONFIDENCE_LEVEL
