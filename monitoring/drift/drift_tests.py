"""Data drift tests: compare a window of predictions with the model's own reference.

Two-sample Kolmogorov-Smirnov tests on the softmax outputs, after Rabanser et al., "Failing Loudly:
An Empirical Study of Methods for Detecting Dataset Shift", NeurIPS 2019. Their p-values are
corrected after Holm, which finds drift in any output exactly when Bonferroni's correction, as
there, does. The population stability index (PSI) of the image features, the confidence and the
predicted class (named `digit`) says how large a change is. docs/MONITORING.md has the measurements
behind the limits and sizes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2, ks_2samp

from pipeline.evaluation.significance import holm
from serve.models.drift_reference import FEATURES, Reference

NEEDED = 100  # images: with fewer, no test is made
LATEST = 1_000  # images at most: with more, differences that do not matter become significant
FALSE_ALARMS = 0.001  # probability of a false alarm, of all Kolmogorov-Smirnov tests together
LARGE_PSI = 0.25  # the usual limit for "large"; with few images chance alone gives more
_CHANCE_OF_LIMIT = 0.0001  # probability that chance alone exceeds a PSI limit
_BINS = 10  # deciles of the reference, as is usual for PSI
_SMOOTHING = 0.5  # added to each bin's count, so that no bin is empty: Jeffreys' prior

DIGITS = tuple("0123456789")
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Result:
    """A statistic, the limit beyond which it means drift, and whether it is beyond."""

    value: float
    limit: float
    drift: bool


@dataclass(frozen=True)
class Findings:
    """All results for a window of `images`; both tables are empty if there are too few images."""

    images: int
    p_values: dict[str, Result]  # by softmax output
    psi: dict[str, Result]  # by feature

    @property
    def enough(self) -> bool:
        """True if the window has enough images to test."""
        return self.images >= NEEDED

    @property
    def drifted(self) -> list[str]:
        """Names of the outputs and features beyond their limits."""
        return [name for name, result in (self.p_values | self.psi).items() if result.drift]


def check(window: Reference, reference: Reference, labels: Sequence[str] = DIGITS) -> Findings:
    """Test a window of predictions for data drift against the reference.

    `labels`: of the classes, in the order of the outputs.
    """
    n = len(window.probabilities)
    if n < NEEDED:
        return Findings(n, {}, {})
    p_values = kolmogorov_smirnov(window, reference, labels)
    return Findings(n, p_values, stability(window, reference))


def kolmogorov_smirnov(
    window: Reference, reference: Reference, labels: Sequence[str] = DIGITS
) -> dict[str, Result]:
    """Return the corrected p-value of a Kolmogorov-Smirnov test for each softmax output."""
    outputs = zip(window.probabilities.T, reference.probabilities.T, strict=True)
    found = [float(ks_2samp(*samples, method="asymp").pvalue) for samples in outputs]
    return {
        f"softmax_{label}": Result(p, FALSE_ALARMS, p < FALSE_ALARMS)
        for label, p in zip(labels, holm(found), strict=True)
    }


def stability(window: Reference, reference: Reference) -> dict[str, Result]:
    """Return the PSI of each image feature, of the confidence and of the predicted digit."""
    counts = {
        name: decile_counts(feature(window, name), feature(reference, name))
        for name in (*features(reference), "confidence")
    }
    counts["digit"] = class_counts(window), class_counts(reference)
    results = {}
    for name, pair in counts.items():
        value, limit = psi(*pair), psi_limit(*pair)
        results[name] = Result(value, limit, value > limit)
    return results


def features(sample: Reference) -> tuple[str, ...]:
    """Return the names of the image features that the sample has."""
    return FEATURES[: sample.features.shape[1]]


def feature(sample: Reference, name: str) -> NDArray[np.float32]:
    """Return the (n,) values of one of FEATURES, or of `confidence`."""
    if name == "confidence":
        confidence: NDArray[np.float32] = sample.probabilities.max(axis=1)
        return confidence
    return sample.features[:, FEATURES.index(name)]


def class_counts(sample: Reference) -> Counts:
    """Count how often each class was predicted."""
    outputs = sample.probabilities.shape[1]
    return np.bincount(sample.probabilities.argmax(axis=1), minlength=outputs)


def decile_counts(
    window: NDArray[np.float32], reference: NDArray[np.float32]
) -> tuple[Counts, Counts]:
    """Count both samples in the deciles of the reference; ties may leave fewer than ten bins."""
    edges = np.unique(np.quantile(reference, np.arange(1, _BINS) / _BINS))
    window_counts, reference_counts = (
        np.bincount(np.searchsorted(edges, sample, side="right"), minlength=len(edges) + 1)
        for sample in (window, reference)
    )
    return window_counts, reference_counts


def psi(window: Counts, reference: Counts) -> float:
    """Return the population stability index of two histograms with the same bins."""
    now, then = (
        (counts + _SMOOTHING) / (counts + _SMOOTHING).sum() for counts in (window, reference)
    )
    return float(((now - then) * np.log(now / then)).sum())


def psi_limit(window: Counts, reference: Counts) -> float:
    """Return LARGE_PSI, or the PSI that chance alone rarely exceeds if that is more.

    Without drift, PSI follows a chi-square distribution with one degree of freedom less than bins,
    times the sum of the inverse sample sizes: Yurdakul and Naranjo, "Statistical properties of the
    population stability index", Journal of Risk Model Validation, 2020.
    """
    inverse_sizes = 1 / window.sum() + 1 / reference.sum()
    return max(LARGE_PSI, float(chi2.isf(_CHANCE_OF_LIMIT, len(window) - 1) * inverse_sizes))
