"""Statistical significance: is the difference between two models real, or could it be chance?

Not imported by training: SciPy's statistics take 0.7 s to import.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

CONFIDENCE_LEVEL = 0.95  # of every interval; a smaller p than 1 - this is called significant


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Interval of a proportion that holds the true one in 95 of 100 samples (Wilson, 1927)."""
    interval = binomtest(successes, trials).proportion_ci(CONFIDENCE_LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


class Discordance(NamedTuple):
    """Images that one of two models alone reads right."""

    only_first: int
    only_second: int
    p: float  # exact, two-sided: that equally good models differ this much or more


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Discordance:
    """Compares two models on the same images; (n,) each: where it is right.

    The exact test of McNemar, "Note on the sampling error of the difference between correlated
    proportions", Psychometrika 1947.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    discordant = only_first + only_second
    p = float(binomtest(only_first, discordant).pvalue) if discordant else 1.0
    return Discordance(only_first, only_second, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values as they count when there are several: Holm, Scand. J. Statistics 1979."""
    corrected, least = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(np.argsort(p_values, kind="stable")):
        least = max(least, (len(p_values) - rank) * p_values[place])
        corrected[place] = min(least, 1.0)
    return corrected
