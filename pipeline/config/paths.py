"""Paths of all artifacts, relative to the repository; `dvc.yaml` names the same ones."""

from pathlib import Path

MODELS = Path("models/runs")
EVALUATIONS = Path("reports/evaluate")
CURVES = Path("reports/train")
CHAMPION = Path("models/champion")
LIKELIHOOD = Path("models/likelihood")
NETWORK = LIKELIHOOD / "likelihood.tflite"
DATA_REPORT = Path("reports/data")

# The exported feedback of users; DVC tracks it, no stage makes it.
FEEDBACK = Path("data/feedback.npz")

COMPARISON = Path("reports/comparison.json")
METRICS = Path("reports/metrics.json")
BEST = Path("reports/best.yaml")
PLOTS = Path("reports/compare")
PAGE = Path("reports/index.html")
TRACKED = Path("reports/tracked.json")

# Differ each time, so neither Git nor DVC tracks them.
TIMINGS = Path("reports/timings.json")


def raw(data: str) -> Path:
    """Return the folder of the data set's published files, decompressed."""
    return Path("data/raw") / data


def processed(data: str) -> Path:
    """Return the file of the training, validation and test images."""
    return Path("data/processed") / f"{data}.npz"


def ood_examples(data: str) -> Path:
    """Out-of-distribution examples for evaluation: pictures of no digit."""
    return Path("data/nondigits") / f"{data}.npz"


def model(run: int) -> Path:
    """Return the folder of a run's weights, exported model and its description."""
    return MODELS / str(run)


def curves(run: int) -> Path:
    """Return the folder of a run's metrics per epoch."""
    return CURVES / str(run)


def evaluation(run: int) -> Path:
    """Return the folder of a run's metrics and plots on the validation and test images."""
    return EVALUATIONS / str(run)
