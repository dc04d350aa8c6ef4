"""What answers: pictures in, predictions out, and all that is counted and kept on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from serve.decoding.headers import declared_pixels
from serve.decoding.normalise_file import normalise_file
from serve.imaging.errors import ImageError, NoDigitError, TooManyPixelsError
from serve.imaging.png import data_uri
from serve.models.bundle_cache import cache
from serve.models.loaded import LoadedModels, Model
from serve.prediction.feedback_store import FeedbackStore
from serve.prediction.picture import Picture
from serve.prediction.recent_answers import ANSWER_SIZE, RecentAnswers, Seen
from serve.prediction.work_queue import MAX_ITEMS, BusyError, Check, WorkQueue
from serve.settings import Settings
from serve.telemetry.metrics import Described, Metrics, State
from serve.telemetry.tracing import Tracing

Answer = dict[str, Any]
Result = TypeVar("Result")

# What may wait for a thread.
_WAITING_BYTES = 64 * 2**20  # of all requests
_WAITING_PICTURES = 16  # of the largest size: a few seconds
_BATCH_PICTURES = 4  # of the largest size in a batch
_LEAST_PIXELS = 8192  # as many as are read in the time that any picture takes
_BYTE_PIXELS = 4  # as many as are read in the time that a byte of a tensor takes
_SMALL_BODY = 64 * 2**10  # bytes that are parsed in well under a millisecond
_WINDOWS = 2  # on their way at a time
_CHUNK = 32  # images at a time: more is no faster and takes more memory
_SMALL_PIXELS = 4096  # of a PNG that is read in well under a millisecond
_PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"


class Service:
    """One worker's models and memory; the routes share it."""

    def __init__(self, settings: Settings, metrics: Metrics, tracing: Tracing) -> None:
        self.settings = settings
        self.metrics = metrics
        self.models = LoadedModels(cache(settings), metrics.expect)
        self.feedback = FeedbackStore(settings.state_dir / "feedback.db")
        self.tracing = tracing
        self.stopping = False
        self._waiting = self._windows = 0
        self._threshold = np.float32(settings.confidence_threshold)
        metrics.describe_model(self._state)

    def open(self) -> None:
        """Takes threads and files, for as long as requests come."""
        self.recent = RecentAnswers(
            self.settings.state_dir / "recent", self.settings.recent_requests
        )
        # A thread for each kind of what would hold up the event loop. Two batches at once would
        # take more than twice as long, for they wrangle over Python's lock.
        largest = _WAITING_PICTURES * self.settings.max_image_pixels
        most = max(largest, MAX_ITEMS * _LEAST_PIXELS)
        self._bodies = WorkQueue("bodies", most)
        self._pictures = WorkQueue("pictures", most)
        self._batches = WorkQueue("batches", most)

    def close(self) -> None:
        """Lets go of threads and files."""
        for queue in (self._bodies, self._pictures, self._batches):
            queue.close()
        self.recent.close()
        self.tracing.close()

    @property
    def ready(self) -> bool:
        """Whether new requests should come here."""
        return self.models.current is not None and not self.stopping

    @property
    def degraded(self) -> bool:
        """Whether what is in service, if anything is, may not be the newest."""
        return self.models.current is None or bool(self.models.failure)

    async def parse(
        self, body: bytes, parse: Callable[[], Result], check: Check | None = None
    ) -> Result:
        """What the body says: beside the event loop if it is a large one.

        Raises:
            BusyError: too much is waiting already.
        """
        with self.tracing.span("decode", bytes=len(body)):
            if len(body) <= _SMALL_BODY:
                return parse()
            return await self._beside(self._bodies, parse, len(body), 0, check)

    async def run_batch(
        self, size: int, work: Callable[[], Result], check: Check | None = None
    ) -> Result:
        """Does the work, on a tensor of `size` bytes, beside the event loop.

        Raises:
            BusyError: too much is waiting already.
        """
        return await self._beside(self._batches, work, size, size * _BYTE_PIXELS, check)

    async def _beside(
        self,
        queue: WorkQueue,
        work: Callable[[], Result],
        size: int,
        pixels: int,
        check: Check | None,
    ) -> Result:
        if self._waiting and self._waiting + size > _WAITING_BYTES:
            raise BusyError
        self._waiting += size
        try:
            return await queue.run(self.tracing.carried(work), pixels, check)
        finally:
            self._waiting -= size

    async def predict_file(
        self,
        picture: Picture,
        model: Model,
        request_id: str,
        *,
        show: bool = False,
        check: Check | None = None,
    ) -> Answer:
        """The prediction for an image file; `show`: with the image that the model saw.

        That for a draft is neither counted nor kept: a half-drawn digit is no input gone wrong.

        Raises:
            ImageError, NoDigitError: as `normalise`.
            BusyError
        """
        started = perf_counter()
        image = await self._normalised(picture.content, check)
        with self.tracing.span("infer", images=1, version=model.version):
            probabilities = model.predictor.probabilities(image[None])[0]
            likelihood = model.predictor.likelihoods(image[None])[0]
        seconds = perf_counter() - started
        answer = self._answer(
            image, probabilities, likelihood, model, request_id, None if picture.draft else seconds
        )
        return answer | {"image": data_uri(image)} if show else answer

    async def recognise(self, content: bytes, model: Model) -> Seen:
        """What the model makes of an image file, without counting or keeping it."""
        image = await self._normalised(content)
        digit = int(model.predictor.probabilities(image[None])[0].argmax())
        return Seen(image, digit, model.version)

    async def _normalised(self, content: bytes, check: Check | None = None) -> NDArray[np.uint8]:
        limit = self.settings.max_image_pixels
        with self.tracing.span("normalise", images=1, bytes=len(content)):
            if _is_small(content):
                return normalise_file(content, max_pixels=limit)
            return await self._beside(
                self._pictures,
                lambda: normalise_file(content, max_pixels=limit),
                len(content),
                max(_LEAST_PIXELS, self._pixels(content)),
                check,
            )

    def _pixels(self, content: bytes) -> int:
        """How many pixels will be decoded: none of a picture that is refused for its size."""
        return declared_pixels(content, self.settings.max_image_pixels)

    async def predict_files(
        self,
        contents: Sequence[bytes | Exception],
        model: Model,
        request_id: str,
        check: Check | None = None,
    ) -> list[Answer | Exception]:
        """A prediction for each image file, or why there is none.

        `contents` may hold exceptions, which come back in their places.

        Raises:
            BusyError: too much is waiting already.
        """
        capped, pixels = self._capped(contents)

        def work() -> list[Answer | Exception]:
            started = perf_counter()
            with self.tracing.span("normalise", images=len(capped)):
                images = [self._image(content) for content in capped]
            found = [image for image in images if isinstance(image, np.ndarray)]
            answers = iter(self.predict_images(found, model, request_id, started))
            return [image if isinstance(image, Exception) else next(answers) for image in images]

        size = sum(len(content) for content in capped if isinstance(content, bytes))
        pixels = max(pixels, _LEAST_PIXELS * len(capped))
        return await self._beside(self._batches, work, size, pixels, check)

    def _capped(self, contents: Sequence[bytes | Exception]) -> tuple[list[bytes | Exception], int]:
        """The pictures of a batch, errors for those beyond its pixels, and how many it has."""
        most, total = _BATCH_PICTURES * self.settings.max_image_pixels, 0
        capped = list(contents)
        for place, content in enumerate(contents):
            pixels = self._pixels(content) if isinstance(content, bytes) else 0
            if total + pixels > most:
                capped[place] = TooManyPixelsError(
                    f"with this picture the batch has more than {most:,} pixels: send it in another"
                )
            else:
                total += pixels
        return capped, total

    def predict_images(
        self,
        images: Sequence[NDArray[np.uint8]],
        model: Model,
        request_id: str,
        started: float,
    ) -> list[Answer]:
        """Predictions for (28, 28) images; the n-th has the id `request_id.n`."""
        if not len(images):
            return []
        stacked = np.stack(images)
        chunks = [stacked[start : start + _CHUNK] for start in range(0, len(stacked), _CHUNK)]
        with self.tracing.span("infer", images=len(stacked), version=model.version):
            rows = np.concatenate([model.predictor.probabilities(chunk) for chunk in chunks])
            likelihoods = np.concatenate([model.predictor.likelihoods(chunk) for chunk in chunks])
        seconds = (perf_counter() - started) / len(stacked)
        return [
            self._answer(image, row, likelihood, model, f"{request_id}.{place}", seconds)
            for place, (image, row, likelihood) in enumerate(
                zip(stacked, rows, likelihoods, strict=True)
            )
        ]

    def _image(self, content: bytes | Exception) -> NDArray[np.uint8] | Exception:
        if isinstance(content, Exception):
            return content
        try:
            return normalise_file(content, max_pixels=self.settings.max_image_pixels)
        except (ImageError, NoDigitError) as error:
            return error

    def _answer(
        self,
        image: NDArray[np.uint8],
        probabilities: NDArray[np.float32],
        likelihood: np.float32,
        model: Model,
        request_id: str,
        seconds: float | None,
    ) -> Answer:
        """`likelihood`: NaN if the model knows none, which becomes null in JSON.

        `seconds`: how long it took; None if the answer is neither to be counted nor kept.
        """
        digit = int(probabilities.argmax())
        confidence = probabilities[digit]
        uncertain = bool(confidence < self._threshold)
        known = model.predictor.likelihood
        not_digit = known is not None and bool(likelihood < known.threshold)
        if seconds is not None:
            self.metrics.predicted(model.version, digit, float(confidence), seconds)
            self.metrics.doubted(
                model.version, float(likelihood), uncertain=uncertain, not_digit=not_digit
            )
            request, version = request_id.encode(), model.version.encode()
            self.recent.add(request, version, digit, image, probabilities, float(likelihood))
        return {
            "prediction": digit,
            "confidence": confidence,
            "probabilities": probabilities,
            "uncertain": uncertain,
            "digit_likelihood": likelihood,
            "not_digit": not_digit,
            "model_version": model.version,
            "request_id": request_id,
        }

    @contextmanager
    def window_slot(self) -> Iterator[None]:
        """Held from the making of a window until it is sent, which may take its caller long.

        Raises:
            BusyError: as many as may be are held already.
        """
        if self._windows == _WINDOWS:
            raise BusyError
        self._windows += 1
        try:
            yield
        finally:
            self._windows -= 1

    async def window(self, most: int) -> bytes:
        """The latest answers of all workers, `most` at most, as an `.npz` of `recent.Window`.

        Raises:
            BusyError
        """

        def work() -> bytes:
            file = BytesIO()
            np.savez(file, allow_pickle=False, **self.recent.window(most)._asdict())
            return file.getvalue()

        return await self._beside(self._bodies, work, most * ANSWER_SIZE, _LEAST_PIXELS, None)

    def _state(self) -> State:
        model = self.models.current
        if not model:
            return State(self.ready, self.degraded, None, 0)
        about = model.description
        described = Described(
            self.settings.model_name,
            model.version,
            str(about.get("run", "")),
            str(about.get("sha256", "")),
        )
        return State(self.ready, self.degraded, described, model.created)


def _is_small(content: bytes) -> bool:
    """Whether it is a PNG of few pixels, by what it declares, which decoding will check."""
    if not content.startswith(_PNG) or len(content) > 2 * _SMALL_PIXELS:
        return False
    width = int.from_bytes(content[16:20])
    return 0 < width * int.from_bytes(content[20:24]) <= _SMALL_PIXELS
