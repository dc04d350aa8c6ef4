"""The predictor: probabilities for prepared images, from an exported LiteRT model.

Beside it a score that says how much an image looks like one of the classes at all: of a second
model, where the bundle has one, or the energy of the first.

The service answers with it and the pipeline evaluates with it: what is evaluated is what is served.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from serve.imaging.preparation import Preparation

Built = TypeVar("Built")

Shape = tuple[int, int, int]  # height, width and channels of an image
_BATCH = 256  # images at a time: more is no faster and takes more memory

FLOAT32, INT8, AUTO = "float32", "int8", "auto"  # values of MODEL_PRECISION
ENERGY = "energy"  # value of `likelihood.score` in model.json; absent for a model of its own
FILES = {FLOAT32: "model.tflite", INT8: "model.int8.tflite"}


_stderr = threading.RLock()  # two that discard at once would not find it again


class BundleError(Exception):
    """The folder is not a model bundle that can be trusted; the message says what is wrong."""


@contextmanager
def quiet() -> Iterator[None]:
    """Discard what C++ code writes to standard error; Python's exceptions still show.

    TensorFlow's import, the LiteRT converter and each process's first LiteRT interpreter write
    there whatever the log level.
    """
    with _stderr:
        try:
            stderr = os.dup(2)
        except OSError:  # it is closed
            yield
            return
        with Path(os.devnull).open("w") as null:
            os.dup2(null.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def softmax(logits: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float32]:
    """Probabilities of (n, classes) logits, softened or sharpened by `temperature`.

    Temperature scaling after Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """
    scaled = logits / np.float32(temperature)
    exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]


class LogitModel:
    """A LiteRT model from uint8 images to logits, or to other float32 numbers; thread-safe.

    `shape`: height, width and channels of its images. An interpreter is not thread-safe (concurrent
    calls raise, or answer wrongly), so each thread has its own: one for single images, whose memory
    is laid out once, and one for any other number.
    """

    def __init__(self, content: bytes) -> None:
        """Builds and warms up the calling thread's interpreter for single images.

        Raises:
            ValueError: not a LiteRT model from uint8 images to float32 numbers.
            RuntimeError: LiteRT cannot run it.
        """
        self._content = content
        self._local = threading.local()
        with quiet():
            self.shape: Shape = self._session("single").shape
            self(np.zeros((1, *self.shape), np.uint8))

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, classes) float32 logits of (n, *shape) uint8 images; one channel may be left out."""
        images = images.reshape(-1, *self.shape)
        if len(images) == 1:
            return self._session("single").logits(images)
        parts = [images[start : start + _BATCH] for start in range(0, len(images), _BATCH)]
        return np.concatenate([self._session("several").logits(part) for part in parts])

    def _session(self, use: str) -> _Session:
        sessions: dict[str, _Session] = self._local.__dict__
        if use not in sessions:
            sessions[use] = _Session(self._content)
        return sessions[use]


class _Session:
    """An interpreter for one thread; `shape` is that of an image."""

    def __init__(self, content: bytes) -> None:
        self._interpreter = Interpreter(model_content=content, num_threads=1)
        (taken,) = self._interpreter.get_input_details()
        (given,) = self._interpreter.get_output_details()
        shape, types = tuple(map(int, taken["shape"][1:])), (taken["dtype"], given["dtype"])
        if len(shape) != 3 or types != (np.uint8, np.float32):
            raise ValueError(f"the model is not from uint8 images to float32: {shape}, {types}")
        self.shape: Shape = (shape[0], shape[1], shape[2])
        self._input, self._output = taken["index"], given["index"]
        self._batch = 0

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, classes) of (n, *shape)."""
        if len(images) != self._batch:
            size = (len(images), *self.shape)
            self._interpreter.resize_tensor_input(self._input, size, strict=True)
            self._interpreter.allocate_tensors()
            self._batch = len(images)
        self._interpreter.set_tensor(self._input, images)
        self._interpreter.invoke()
        logits: NDArray[np.float32] = self._interpreter.get_tensor(self._output)
        return logits


class Likelihood:
    """How much an image looks like one of the classes; below `threshold` it should not pass.

    A LiteRT model of its own.
    """

    def __init__(self, content: bytes, threshold: float) -> None:
        """Takes a LiteRT model from images to (n, 1); errors as `LogitModel`."""
        self._model = LogitModel(content)
        given = self._model(np.zeros((1, *self._model.shape), np.uint8)).shape
        if given != (1, 1):
            raise ValueError(f"the model gives {given} of an image, not (1, 1)")
        self.threshold = np.float32(threshold)

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n,) float32 from 0 to 1, of (n, h, w, channels) uint8 images."""
        return self._model(images)[:, 0]


class Energy:
    """How much an image looks like one of the classes, by the classifier's own logits.

    The free energy of Liu et al., "Energy-based Out-of-distribution Detection", NeurIPS 2020, at
    temperature 1, with its sign turned, and a logistic function from it to 0 .. 1.
    """

    def __init__(self, offset: float, scale: float, threshold: float) -> None:
        """`offset`: the energy whose score is one half. `scale`: above 0, of the function."""
        self._offset, self._scale = np.float32(offset), np.float32(scale)
        self.threshold = np.float32(threshold)

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Energy:
        """The score that `likelihood` of `model.json` describes."""
        return cls(*(float(described[name]) for name in ("offset", "scale", "threshold")))

    def __call__(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n,) float32 from 0 to 1, of (n, classes) logits."""
        above = (energy(logits) - self._offset) / self._scale
        score: NDArray[np.float32] = np.float32(0.5) * (1 + np.tanh(above / 2))
        return score


def energy(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n,) of (n, classes): the logarithm of the sum of their exponentials."""
    most = logits.max(axis=1)
    found: NDArray[np.float32] = most + np.log(np.exp(logits - most[:, None]).sum(axis=1))
    return found


class Predictor:
    """Calibrated probabilities from a bundle folder: one of its `FILES` and `model.json`.

    `precision`: that of the file. `description`: the content of `model.json`; if the file is the
    int8 one, its hash, temperature and metrics in place of the other's. `size`: bytes of the whole
    folder. `preparation`: from a picture to the model's image. `classes`: the labels in the order
    of the probabilities. `likelihood`: what scores an image, by `likelihood.tflite` or the logits,
    if the description has it; bundles of earlier versions have not.
    """

    def __init__(self, bundle: Path, precision: str = FLOAT32) -> None:
        """Loads and checks the bundle.

        `precision`: `INT8`, or `AUTO` for int8 where it holds. A bundle that has no such file, as
        those of earlier versions, answers in float32.

        Raises:
            BundleError: a file is missing or unreadable, the model is not the one that
                `model.json` describes, or is of other images or classes; or so `likelihood.tflite`.
        """
        try:
            self.description: dict[str, Any] = json.loads((bundle / "model.json").read_bytes())
            int8 = self.description.get("precisions", {}).get(INT8, {})
            wanted = precision == INT8 or (precision == AUTO and int8.get("holds"))
            self.precision = INT8 if int8 and wanted else FLOAT32
            if self.precision == INT8:
                self.description |= int8
            self.preparation = Preparation.of(self.description)
            self.classes: list[int] | list[str] = self.description["classes"]
            self._temperature = float(self.description["temperature"])
            path = bundle / FILES[self.precision]
            self._logits = _built(path, self.description["sha256"], LogitModel)
            self._require_match(bundle)
            self.likelihood = _likelihood(bundle, self.description.get("likelihood"))
            self.size = sum(file.stat().st_size for file in bundle.iterdir())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BundleError(f"{bundle} is not a model bundle: {error}") from error

    def _require_match(self, bundle: Path) -> None:
        """Refuse a model whose images or classes are not those that `model.json` names."""
        shape, classes = self.preparation.shape, len(self.classes)
        if self._logits.shape != shape:
            raise BundleError(f"{bundle}: the model reads {self._logits.shape} images, not {shape}")
        given = self._logits(np.zeros((1, *shape), np.uint8)).shape[1]
        if given != classes:
            raise BundleError(f"{bundle}: the model knows {given} classes, not {classes}")

    def predict(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The `probabilities` and `likelihoods` of the images, by one call of the classifier."""
        logits = self._logits(images)
        return softmax(logits, self._temperature), self._scores(images, logits)

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, classes) float32, rows sum to 1; (n, h, w) or (n, h, w, channels) uint8 images."""
        return softmax(self._logits(images), self._temperature)

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, classes) float32, as the model gives them: not calibrated."""
        return self._logits(images)

    def likelihoods(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n,) float32 from 0 to 1, how much each looks like one of the classes; NaN if unknown."""
        logits = self._logits(images) if isinstance(self.likelihood, Energy) else None
        return self._scores(images, logits)

    def _scores(
        self, images: NDArray[np.uint8], logits: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        if isinstance(self.likelihood, Energy):
            assert logits is not None
            return self.likelihood(logits)
        if self.likelihood is None:
            return np.full(len(images), np.nan, np.float32)
        return self.likelihood(images)


def _likelihood(bundle: Path, given: dict[str, Any] | None) -> Likelihood | Energy | None:
    """Return the score that `model.json` describes."""
    if not given:
        return None
    if given.get("score") == ENERGY:
        return Energy.of(given)
    build = partial(Likelihood, threshold=float(given["threshold"]))
    return _built(bundle / "likelihood.tflite", given["sha256"], build)


def each_precision(bundle: Path) -> list[Predictor]:
    """Return a predictor for each model of the bundle, float32 first; errors as `Predictor`."""
    first = Predictor(bundle)
    others = [each for each in (INT8,) if each in first.description.get("precisions", {})]
    return [first, *(Predictor(bundle, each) for each in others)]


def _built(path: Path, digest: str, build: Callable[[bytes], Built]) -> Built:
    """Return what `build` makes of the file, which must have this digest."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise BundleError(f"{path} is not the file that model.json describes")
    try:
        return build(content)
    except (RuntimeError, ValueError) as error:
        raise BundleError(f"{path} cannot be run: {error}") from error
