"""Deterministic and quiet TensorFlow: the same weights each time, on all x86 with AVX2."""

import logging
import os

from serve.models.predictor import quiet


def start(seed: int, threads: int, precision: str = "float32") -> None:
    """Import TensorFlow and fix all that changes weights: seed, threads, oneDNN, its instructions.

    Call it before anything else imports TensorFlow: the flags and the thread counts cannot be
    changed afterwards.
    """
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"
    # oneDNN's kernels for AVX-512 round otherwise; a processor without it would give other weights.
    # Where TensorFlow sees AVX-512, it wants them for bfloat16, which has none for AVX2.
    if precision == "float32":
        os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX2"
    import_tensorflow()
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(seed)


def import_tensorflow() -> None:
    """Import TensorFlow without its messages; takes 4 s.

    Level 3 hides its C++ code's errors too: op determinism causes one in each training ("attribute
    use_unbounded_threadpool") that means nothing, and a real one is raised as well.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("absl", "tensorflow"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with quiet():
        import tensorflow  # noqa: F401  for its side effect: it is loaded
