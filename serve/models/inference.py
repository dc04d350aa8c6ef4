"""Inference on any number of images, some at a time, by threads beside the caller's."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from serve.models.predictor import Predictor

Floats = NDArray[np.float32]
Found = tuple[Floats, Floats]

CHUNK = 32  # images per model call: more is no faster and takes more memory


def infer(predictor: Predictor, images: NDArray[np.uint8]) -> Found:
    """Return the probabilities, (n, classes), and the likelihoods, (n,), of prepared images."""
    return predictor.predict(images)


class Inference:
    """Threads that infer chunks of images while the caller prepares the next ones.

    LiteRT does not hold Python's global lock (GIL) meanwhile. A thread has interpreters of its own.
    """

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, "inference")

    def begin(
        self, predictor: Predictor, images: Sequence[NDArray[np.uint8]]
    ) -> list[Future[Found]]:
        """Begin to infer prepared images; their order is that of the results."""
        starts = range(0, len(images), CHUNK)
        chunks = (np.stack(images[start : start + CHUNK]) for start in starts)
        return [self._threads.submit(infer, predictor, chunk) for chunk in chunks]

    def close(self) -> None:
        """Wait for what has begun."""
        self._threads.shutdown()
