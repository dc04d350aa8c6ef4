"""TensorFlow that gives the same weights each time on one machine, and keeps quiet about it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def start(seed: int, threads: int) -> None:
    """Imports TensorFlow with everything fixed that changes weights: seed, threads, oneDNN.

    Call it before anything else imports TensorFlow: neither the flag nor the thread counts can be
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
    """Imports TensorFlow without its greetings; takes 4 s."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    for chatty in ("absl", "tensorflow"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    with quiet():
        import tensorflow  # noqa: F401  for its side effect: it is loaded


@contextmanager
def quiet() -> Iterator[None]:
    """Sends what C++ code writes to standard error to nowhere.

    TensorFlow greets on import and the LiteRT converter thinks aloud, before and whatever the log
    level. Python's exceptions are not touched.
    """
    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
