"""A served model: its loaded versions, and the feedback and recent answers of their images."""

from __future__ import annotations

import threading
from collections.abc import Callable

from serve.models.bundle_cache import open_cache
from serve.models.image_format import DIGITS, ImageFormat
from serve.models.loaded import LoadedModels, Model
from serve.prediction.feedback_store import Entry, FeedbackStore
from serve.prediction.recent_answers import RecentAnswers, Seen
from serve.settings import Settings
from serve.sources import Source


class Served:
    """One of the models that a worker serves; what it keeps lies in the folder of its source."""

    def __init__(self, settings: Settings, source: Source, expect: Callable[[str], None]) -> None:
        """`expect` is called with the series of each version before it answers."""

        def begin(model: Model) -> None:
            expect(model.series)
            self.recent(model.images)

        self.name, self.source = source.name, source
        self.models = LoadedModels(
            open_cache(settings, source),
            source,
            begin,
            settings.check_seconds(source),
            settings.model_precision,
        )
        self._settings = settings
        self._recent: dict[ImageFormat, RecentAnswers] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close files."""
        for recent in self._recent.values():
            recent.close()

    @property
    def reason(self) -> str:
        """Why no model is in service, or perhaps not the newest one; empty if it is."""
        loaded = self.models.current is not None
        return self.models.failure or ("" if loaded else "no model is loaded yet")

    @property
    def _formats(self) -> list[ImageFormat]:
        """Formats of the images that may be asked for, that of the model in service first."""
        return list(dict.fromkeys(model.images for model in self.models.loaded)) or [DIGITS]

    @property
    def labels(self) -> list[int] | list[str]:
        """Labels that feedback may have."""
        current = self.models.current
        return current.predictor.classes if current else list(range(10))

    def series(self, version: str) -> str:
        """Return the value of `model_version` in metrics."""
        return self.source.series(version)

    def recent(self, images: ImageFormat) -> RecentAnswers:
        """Return the recent answers about images of this format."""
        found = self._recent.get(images)
        if found:
            return found
        with self._lock:
            if images not in self._recent:
                folder, slots = self.source.state / "recent", self._settings.recent_requests
                self._recent[images] = RecentAnswers(folder, slots, images)
            return self._recent[images]

    def find(self, request_id: str, owner: str) -> Seen | None:
        """Return the latest image of the owner's request, if it is still kept."""
        found = (self.recent(images).find(request_id, owner) for images in self._formats)
        return next(filter(None, found), None)

    def feedback(self, images: ImageFormat) -> FeedbackStore:
        """Return the store of feedback on images of this format."""
        path, most = self.source.state / "feedback.db", self._settings.feedback_max_bytes
        return FeedbackStore(path, most, images)

    def find_feedback(
        self, request_id: str, owner: str, until: float
    ) -> tuple[Entry, FeedbackStore] | None:
        """Return the stored feedback on the owner's request, and its store."""
        for store in map(self.feedback, self._formats):
            if found := store.find(request_id, owner, until):
                return found, store
        return None
