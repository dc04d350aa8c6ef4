"""What the machine decides, not the configuration: the only place that reads variables."""

from __future__ import annotations

import os
from pathlib import Path


def root() -> Path:
    """The true repository root, also for a stage that DVC runs in a temporary copy."""
    return Path(os.environ.get("DVC_ROOT") or Path.cwd()).resolve()


def mnist_mirror() -> str | None:
    """A folder or URL to try first for the files of MNIST."""
    return os.environ.get("MNIST_MIRROR") or None


def tracking_uri() -> str:
    """MLflow's tracking and registry store; absolute, because the working folder may vanish."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root() / 'mlflow.db'}"


def artifact_location() -> str:
    """Where a store that is a file keeps its artifacts."""
    return (root() / "mlartifacts").as_uri()


def experiment() -> dict[str, str]:
    """The DVC experiment that runs this stage, as tags; empty under plain `dvc repro`."""
    names = ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV")
    return {name: os.environ[name] for name in names if os.environ.get(name)}
