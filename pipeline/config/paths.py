"""Where every artifact lies, relative to the repository; `dvc.yaml` says the same to DVC."""

from __future__ import annotations

from pathlib import Path

MODELS = Path("models/runs")
EVALUATIONS = Path("reports/evaluate")
CURVES = Path("reports/train")
CHAMPION = Path("models/champion")
LIKELIHOOD = Path("models/likelihood")
DATA_REPORT = Path("reports/data")

# What users told the service, as exported; DVC tracks it, no stage makes it.
FEEDBACK = Path("data/feedback.npz")

COMPARISON = Path("reports/comparison.json")
METRICS = Path("reports/metrics.json")
BEST = Path("reports/best.yaml")
PLOTS = Path("reports/compare")
PAGE = Path("reports/index.html")
TRACKED = Path("reports/tracked.json")

# Differ each time, so neither git nor DVC tracks them.
TIMINGS = Path("reports/timings.json")
# History of the registry; git tracks it, no stage makes it.
PROMOTIONS = Path("reports/promotions.jsonl")


def raw(data: str) -> Path:
    """The data set's files as published, decompressed."""
    return Path("data/raw") / data


def processed(data: str) -> Path:
    """The data set split into train, validation and test."""
    return Path("data/processed") / f"{data}.npz"


def ood_examples(data: str) -> Path:
    """Out-of-distribution examples for evaluation: pictures of no digit."""
    return Path("data/nondigits") / f"{data}.npz"


def model(run: int) -> Path:
    """A run's weights, exported model and its description."""
    return MODELS / str(run)


def curves(run: int) -> Path:
    """A run's metrics per epoch."""
    return CURVES / str(run)


def evaluation(run: int) -> Path:
    """A run's figures and pictures on validation and test split."""
    return EVALUATIONS / str(run)
