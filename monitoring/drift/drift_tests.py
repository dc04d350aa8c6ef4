"""Two-sample tests of a window of answers against the reference of the model that gave them.

On the softmax outputs after Rabanser et al., "Failing Loudly: An Empirical Study of Methods for
Detecting Dataset Shift", NeurIPS 2019: Kolmogorov-Smirnov on each, with Bonferroni's correction.
On what can be seen of the images, and on the answers, the population stability index, PSI, which
says how large a change is. Limits and sizes are measured: docs/MONITORING.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2, ks_2samp

from serve.models.drift_reference import FEATURES, Reference

NEEDED = 100  # images; of fewer nothing is said
LATEST = 1_000  # images at most: of more, what does not matter becomes significant
FALSE_ALARMS = 0.001  # of all tests of a check together
LARGE_PSI = 0.25  # by custom; below NEEDED or with a small reference chance alone makes more
_RARE = 0.0001  # chance of that
_BINS = 10

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Found:
    """A value and the limit beyond which it means drift."""

    value: float
    limit: float
    drift: bool


@dataclass(frozen=True)
class Findings:
    """Of a window of `images`: p-values by output, PSI by feature; none if there are too few."""

    images: int
    p_values: dict[str, Found]
    psi: dict[str, Found]

    @property
    def enough(self) -> bool:
        """Whether there were enough images to say something."""
        return self.images >= NEEDED

    @property
    def drifted(self) -> list[str]:
        """The outputs and features that are beyond their limits."""
        return [name for name, found in (self.p_values | self.psi).items() if found.drift]


def check(window: Reference, reference: Reference) -> Findings:
    """Compares a window with the reference."""
    n = len(window.probabilities)
    if n < NEEDED:
        return Findings(n, {}, {})
    return Findings(n, p_values(window, reference), stability(window, reference))


def p_values(window: Reference, reference: Reference) -> dict[str, Found]:
    """Kolmogorov-Smirnov on each softmax output."""
    outputs = reference.probabilities.shape[1]
    limit = FALSE_ALARMS / outputs
    found = {}
    for digit in range(outputs):
        samples = window.probabilities[:, digit], reference.probabilities[:, digit]
        p = float(ks_2samp(*samples, method="asymp").pvalue)
        found[f"softmax_{digit}"] = Found(p, limit, p < limit)
    return found


def stability(window: Reference, reference: Reference) -> dict[str, Found]:
    """PSI of each feature of the images, of the confidence, and of how often each digit comes."""
    samples = [(seen(window, name), seen(reference, name)) for name in (*FEATURES, "confidence")]
    counts = [binned(*pair) for pair in samples]
    counts.append((_digits(window), _digits(reference)))
    found = {}
    for name, (now, then) in zip((*FEATURES, "confidence", "digit"), counts, strict=True):
        value, limit = psi(now, then), psi_limit(now, then)
        found[name] = Found(value, limit, value > limit)
    return found


def seen(sample: Reference, name: str) -> NDArray[np.float32]:
    """(n,) a feature by its name; also `confidence`."""
    if name == "confidence":
        confidence: NDArray[np.float32] = sample.probabilities.max(axis=1)
        return confidence
    return sample.features[:, FEATURES.index(name)]


def binned(window: NDArray[np.float32], reference: NDArray[np.float32]) -> tuple[Counts, Counts]:
    """How much of each lies in the tenths of the reference; ties may leave fewer than ten."""
    edges = np.unique(np.quantile(reference, np.arange(1, _BINS) / _BINS))
    window_bins, reference_bins = (
        np.bincount(np.searchsorted(edges, each, side="right"), minlength=len(edges) + 1)
        for each in (window, reference)
    )
    return window_bins, reference_bins


def psi(window: Counts, reference: Counts) -> float:
    """The population stability index; half a count more in each bin, so that none is empty."""
    now, then = ((counts + 0.5) / (counts + 0.5).sum() for counts in (window, reference))
    return float(((now - then) * np.log(now / then)).sum())


def psi_limit(window: Counts, reference: Counts) -> float:
    """The PSI that is large, or that chance hardly reaches if that is more.

    By chance it is chi-squared times the sum of the samples' inverse sizes: Yurdakul and Naranjo,
    "Statistical properties of the population stability index", Journal of Risk Model Validation,
    2020.
    """
    inverse = 1 / window.sum() + 1 / reference.sum()
    return max(LARGE_PSI, float(chi2.isf(_RARE, len(window) - 1) * inverse))


def _digits(sample: Reference) -> Counts:
    outputs = sample.probabilities.shape[1]
    return np.bincount(sample.probabilities.argmax(axis=1), minlength=outputs)
