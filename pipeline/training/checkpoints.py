"""Checkpoints after each epoch, so that a killed training resumes where it was.

They lie outside the stage's outputs and outside a temporary copy, because DVC deletes both.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np
import PIL
import tensorflow as tf
from filelock import FileLock

from pipeline.config import PipelineError, environment
from pipeline.storage.files import replacing, sha256, write_json

History = list[dict[str, float]]

_HISTORY = "history.json"


def folder(settings: object, inputs: Iterable[Path]) -> Path:
    """Return the folder of the one training with these settings, files and libraries."""
    libraries = [keras.__version__, tf.__version__, np.__version__, PIL.__version__]
    digest = hashlib.sha256(json.dumps([settings, libraries], sort_keys=True).encode())
    for path in inputs:
        digest.update(sha256(path).encode())
    return environment.root() / ".checkpoints" / digest.hexdigest()[:32]


def save(path: Path, model: keras.Model, history: History, best: int) -> None:
    """Save weights, optimiser and random state after the last epoch of `history`.

    `best` is the epoch, from 1, that `restore_best` brings back. Other epochs are deleted.
    """
    epoch = len(history)
    with replacing(_weights(path, epoch)) as temporary:
        model.save_weights(temporary)
    write_json(path / _HISTORY, history)
    for old in range(1, epoch):
        if old != best:
            _weights(path, old).unlink(missing_ok=True)


def restore(path: Path, model: keras.Model) -> History:
    """Restore the latest state of `model` and return the metrics of its finished epochs.

    It is a PipelineError if the checkpoint cannot be read.
    """
    if not (path / _HISTORY).exists():
        return []
    try:
        history: History = json.loads((path / _HISTORY).read_bytes())
        model.load_weights(_weights(path, len(history)))
    except (OSError, ValueError) as error:
        raise PipelineError(f"the checkpoint {path} is corrupt ({error}): rm -r {path}") from error
    return history


def restore_best(path: Path, model: keras.Model, best: int) -> None:
    """Restore the state of `model` after epoch `best`."""
    model.load_weights(_weights(path, best))


def discard(path: Path) -> None:
    """Delete the checkpoint; its index goes first, so that a kill leaves no half of it."""
    (path / _HISTORY).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def claimed(path: Path) -> FileLock:
    """Return the lock of the checkpoint: another process with the same training waits for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_suffix(".lock"))


def _weights(path: Path, epochs: int) -> Path:
    return path / f"epoch-{epochs}.weights.h5"
