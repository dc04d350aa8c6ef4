"""The predictor: probabilities for 28x28 images, from an exported LiteRT model.

The service answers with it and the pipeline evaluates with it: what is evaluated is what is served.
"""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

_BATCH = 256  # images at a time: more is no faster and takes more memory


class BundleError(Exception):
    """The folder is not a model bundle that can be trusted; the message says what is wrong."""


def softmax(logits: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float32]:
    """Probabilities of (n, classes) logits, softened or sharpened by `temperature`.

    Temperature scaling after Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """
    scaled = logits / np.float32(temperature)
    exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]


class LogitModel:
    """A LiteRT model from uint8 images to logits; safe to call from several threads.

    An interpreter is not (concurrent calls raise, or answer wrongly), so each thread has its own.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._local = threading.local()
        self._interpreter(1)

    def _interpreter(self, batch: int) -> Interpreter:
        local = self._local
        if not hasattr(local, "interpreter"):
            local.interpreter = Interpreter(model_content=self._content, num_threads=1)
            local.input = local.interpreter.get_input_details()[0]["index"]
            local.output = local.interpreter.get_output_details()[0]["index"]
            local.batch = None
        if local.batch != batch:
            local.interpreter.resize_tensor_input(local.input, (batch, 28, 28, 1), strict=True)
            local.interpreter.allocate_tensors()
            local.batch = batch
        return local.interpreter

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, classes) float32 logits of (n, 28, 28) or (n, 28, 28, 1) uint8 images."""
        parts = [images[start : start + _BATCH] for start in range(0, len(images), _BATCH)]
        return np.concatenate([self._logits(part) for part in parts])

    def _logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        interpreter = self._interpreter(len(images))
        interpreter.set_tensor(self._local.input, images.reshape(-1, 28, 28, 1))
        interpreter.invoke()
        return interpreter.get_tensor(self._local.output)  # type: ignore[no-any-return]


class Predictor:
    """Calibrated probabilities from a bundle folder: `model.tflite` and `model.json`.

    `description`: the content of `model.json`. `size`: bytes of the whole folder.
    """

    def __init__(self, bundle: Path) -> None:
        """Loads and checks the bundle.

        Raises:
            BundleError: a file is missing or unreadable, or `model.tflite` is not the one that
                `model.json` describes.
        """
        try:
            self.description: dict[str, Any] = json.loads((bundle / "model.json").read_bytes())
            content = (bundle / "model.tflite").read_bytes()
            digest, self._temperature = (
                self.description["sha256"],
                float(self.description["temperature"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{bundle} is not a model bundle: {error}") from error
        if hashlib.sha256(content).hexdigest() != digest:
            raise BundleError(f"{bundle}/model.tflite is not the file that model.json describes")
        self.size = sum(file.stat().st_size for file in bundle.iterdir())
        self._logits = LogitModel(content)

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, classes) float32, rows sum to 1; (n, 28, 28) uint8 images, digit bright on dark."""
        return softmax(self._logits(images), self._temperature)
