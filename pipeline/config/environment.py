"""Environment variables: the only module that reads them."""

import os
import sys
from pathlib import Path

from pipeline.config.errors import PipelineError


def root() -> Path:
    """Return the true repository root, also for a stage that DVC runs in a temporary copy."""
    return Path(os.environ.get("DVC_ROOT") or Path.cwd()).resolve()


def mnist_mirror() -> str | None:
    """Return MNIST_MIRROR, the folder or URL to ask first for the files of MNIST."""
    return os.environ.get("MNIST_MIRROR") or None


def tracking_uri() -> str:
    """Return the URI of MLflow's tracking and registry store.

    It is a PipelineError if a SQLite store's path is relative to the working folder, which may
    vanish.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root() / 'mlflow.db'}"
    if uri.startswith("sqlite:") and not Path(uri.removeprefix("sqlite:///")).is_absolute():
        raise PipelineError(
            f"MLFLOW_TRACKING_URI={uri} must be absolute: sqlite:////path/mlflow.db"
        )
    return uri


def artifact_location() -> str | None:
    """Return where a store without a server keeps its artifacts; a server decides for itself."""
    served = tracking_uri().startswith(("http:", "https:", "databricks"))
    return None if served else (root() / "mlartifacts").as_uri()


def experiment() -> dict[str, str]:
    """Return the DVC experiment that runs this stage, as tags; empty under plain `dvc repro`."""
    names = ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV")
    return {name: os.environ[name] for name in names if os.environ.get(name)}


def dvc_stage() -> str:
    """Return the stage that DVC runs here, such as `train@1`; empty if the user runs it."""
    return os.environ.get("DVC_STAGE", "")


def under_repro() -> bool:
    """Return whether plain `dvc repro` runs this stage, not an experiment and not the user."""
    return bool(dvc_stage()) and not experiment()


def sweep_job() -> tuple[str | None, str]:
    """Return, for a job of a sweep, the id of its parent run in MLflow and its changed settings."""
    return os.environ.get("SWEEP_PARENT") or None, os.environ.get("SWEEP_LABEL", "")


def live_log() -> bool:
    """Return whether MLflow shows trainings while they run; `LIVE_LOG=0` turns that off."""
    return os.environ.get("LIVE_LOG") != "0"


def for_program(**variables: str) -> dict[str, str]:
    """Return this process's variables and `variables`, for a program of ours that it starts.

    `python` there is this interpreter, also where .venv is not activated. Its output is unbuffered,
    so that its log can be followed.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", **variables}
