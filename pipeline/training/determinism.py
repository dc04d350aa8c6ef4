"""Deterministic and quiet TensorFlow: the same weights each time on one machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def start(seed: int, threads: int) -> None:
    """Import TensorFlow and fix all that changes weights: seed, threads, oneDNN.

    Call it before anything else imports TensorFlow: the flag and the thread counts cannot be
    changed afterwards.
    """
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"
    import_tensorflow()
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(seed)


def import_tensorflow() -> None:
    """Import TensorFlow without its start-up messages; takes 4 s."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    for name in ("absl", "tensorflow"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with quiet():
        import tensorflow  # noqa: F401  for its side effect: it is loaded


@contextmanager
def quiet() -> Iterator[None]:
    """Discard what C++ code writes to standard error; Python's exceptions still show.

    TensorFlow's import and the LiteRT converter write there whatever the log level.
    """
    stderr = os.dup(2)
    with Path(os.devnull).open("w") as null:
        os.dup2(null.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
