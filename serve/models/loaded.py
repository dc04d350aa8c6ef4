"""Hot reload: the models that a worker has loaded, the current and the previous version.

A worker polls the bundle cache and swaps a new version in without a restart.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serve.models import drift_reference
from serve.models.bundle_cache import CARDS, BundleCache, Release
from serve.models.image_format import ImageFormat, Label
from serve.models.predictor import FLOAT32, INT8, BundleError, Predictor
from serve.sources import Source

logger = logging.getLogger(__name__)

_WATCH_SECONDS = 0.25  # poll interval; each poll is two calls of stat
_RETRY_SECONDS = 10.0  # between attempts to load a broken bundle


class NoModelError(Exception):
    """No model is loaded, so nothing can be predicted."""


class UnknownModelError(Exception):
    """The model that the caller chose is not served; the message lists the served ones."""


class UnknownVersionError(Exception):
    """The version that the caller chose is not loaded; the message lists the loaded ones."""


class NoReferenceError(Exception):
    """The model's bundle has no drift reference, or one that cannot be trusted."""


class Model(NamedTuple):
    """A loaded model: its name, its version, as responses name it, and its bundle's folder.

    `series`: the value of `model_version` in metrics.
    """

    name: str
    series: str
    version: str
    predictor: Predictor
    images: ImageFormat
    created: float  # seconds since 1970
    folder: Path
    card: str | None  # the model card in Markdown
    shares: dict[Label, float]  # of each predicted class in the reference; empty without one

    @property
    def description(self) -> dict[str, Any]:
        """Content of the bundle's `model.json`."""
        return self.predictor.description

    def best(self, probabilities: NDArray[np.float32], most: int) -> list[dict[str, Any]]:
        """Return the labels of the largest probabilities, the best first."""
        order = np.argsort(-probabilities, kind="stable")[:most]
        labels = self.predictor.classes
        return [{"label": labels[one], "probability": probabilities[one]} for one in order]


class LoadedModels:
    """The loaded versions of a model.

    `current` and `previous` change between requests, never within one.
    """

    def __init__(
        self,
        bundles: BundleCache,
        source: Source,
        begin: Callable[[Model], None] = lambda model: None,
        check_seconds: float = math.inf,
        precision: str = FLOAT32,
    ) -> None:
        """Start with no model; `begin` is called with each before it answers.

        `check_seconds`: how long it may last until the source is followed again. `precision`: as
        of `Predictor`.
        """
        self.current: Model | None = None
        self.previous: Model | None = None
        self._bundles, self._source = bundles, source
        self._begin = begin
        self._loaded: dict[Release, Model] = {}
        self._broken = ""
        self._check_seconds, self._started = check_seconds, time.time()
        self._precision = precision

    @property
    def failure(self) -> str:
        """Reason why the newest version may not be in service; empty if it is."""
        return self._broken or self._bundles.failure() or self._overdue()

    def _overdue(self) -> str:
        late = time.time() - max(self.checked, self._started) > self._check_seconds
        return "the registry is not being checked" if late else ""

    @property
    def checked(self) -> float:
        """When the source was last followed, in seconds since 1970; 0 if never, or only once."""
        return self._bundles.checked() if self._check_seconds < math.inf else 0.0

    @property
    def loaded(self) -> list[Model]:
        """All loaded models, the one in service first."""
        return [model for model in (self.current, self.previous) if model]

    def choose(self, version: str | None) -> Model:
        """Return the model in service, or the loaded model of that version.

        It is a NoModelError if none is loaded, an UnknownVersionError if that version is not.
        """
        loaded = self.loaded
        if not loaded:
            raise NoModelError("no model is loaded yet")
        if not version:
            return loaded[0]
        for model in loaded:
            if version == model.version:
                return model
        names = ", ".join(model.version for model in loaded)
        raise UnknownVersionError(f"version {version[:40]!r} is not loaded; loaded: {names}")

    def refresh(self) -> None:
        """Load the versions that the pointer names and swap them in (hot reload).

        On a failure the present models stay. Call this in the thread that predicts: it creates
        that thread's interpreter, so no request has to.
        """
        pointer = self._bundles.pointer()
        if not pointer:
            return
        found = {}
        for release in filter(None, pointer):
            try:
                found[release] = self._loaded.get(release) or self._model(release)
            except (BundleError, OSError, RuntimeError, ValueError) as error:
                logger.error("version %s cannot be loaded: %s", release.version, error)
        if pointer.current not in found:
            self._broken = f"version {pointer.current.version} cannot be loaded"
            return
        self._broken, self._loaded = "", found
        if self.current is not found[pointer.current]:
            self._begin(found[pointer.current])
            logger.info("version %s is in service", found[pointer.current].series)
        self.current = found[pointer.current]
        self.previous = found.get(pointer.previous) if pointer.previous else None

    async def watch(self) -> None:
        """Poll the pointer and reload until cancelled; a swap takes milliseconds."""
        seen, again = None, 0.0
        while True:
            try:
                stamp = self._bundles.stamp()
                if stamp != seen or (self._broken and time.monotonic() >= again):
                    seen, again = stamp, time.monotonic() + _RETRY_SECONDS
                    self.refresh()
            except Exception as error:  # an unexpected error must not end the watch
                logger.exception("the models cannot be followed")
                self._broken = f"the models cannot be followed: {type(error).__name__}"
            await asyncio.sleep(_WATCH_SECONDS)

    def _model(self, release: Release) -> Model:
        folder = self._bundles.path(release)
        made = (folder / "model.json").stat().st_mtime  # set by registry_sync
        texts = (folder / name for name in CARDS)
        card = next((path.read_text("utf-8", "replace") for path in texts if path.exists()), None)
        predictor = Predictor(folder, self._precision)
        if self._precision == INT8 and predictor.precision != INT8:
            logger.warning("version %s has no int8 model: float32 answers", release.version)
        series, images = self._source.series(release.version), ImageFormat.of(predictor)
        name, version = self._source.name, release.version
        shares = _shares(folder, images.labels)
        return Model(name, series, version, predictor, images, made, folder, card, shares)


def _shares(folder: Path, labels: Sequence[Label]) -> dict[Label, float]:
    """Return the share of each predicted class in the bundle's reference, if it has one."""
    try:
        found = drift_reference.read((folder / drift_reference.FILE).read_bytes()).probabilities
    except Exception:  # a damaged archive raises errors of many kinds; answers do not need it
        return {}
    counts = np.bincount(found.argmax(axis=1), minlength=len(labels))
    return dict(zip(labels, counts / len(found), strict=False))
