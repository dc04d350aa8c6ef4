"""Prediction service of one worker: predict images, count the answers and keep them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from time import perf_counter
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from serve.decoding.batch import Read, read_batch, within_limit
from serve.decoding.decode import read_file
from serve.decoding.headers import declared_pixels, is_small_png
from serve.decoding.picture import Reading
from serve.imaging.normalise import data_uri
from serve.models.image_format import DIGITS
from serve.models.inference import CHUNK, Floats, Found, Inference, infer
from serve.models.loaded import Model, UnknownModelError
from serve.prediction.explanation import explain, sides
from serve.prediction.recent_answers import Answer, Seen
from serve.prediction.served import Served
from serve.prediction.state import state
from serve.prediction.work_queue import MAX_ITEMS, Check, WorkQueues
from serve.settings import Settings
from serve.telemetry.metrics import Metrics
from serve.telemetry.request_context import RequestContext
from serve.telemetry.tracing import Tracing

Result = TypeVar("Result")
Image = NDArray[np.uint8]  # as the model reads it

# Work is measured in pixels to decode. A work queue takes this many pictures of the largest size
# (a few seconds' work); a batch has as many pixels as one of them.
MAX_WAITING_PICTURES = 4
# Cost in pixels of the smallest picture, all steps included, and of one byte of a tensor.
MIN_PICTURE_PIXELS = 8192
PIXELS_PER_TENSOR_BYTE = 4
EXPLANATION_PIXELS = 5_000_000  # an explanation takes as long as to decode so many

# Up to these sizes the event loop parses or decodes by itself: well under a millisecond, less than
# a change of threads would cost other requests.
SMALL_BODY_BYTES = 64 * 2**10
SMALL_PNG_PIXELS = 4096

MAX_WINDOW_BYTES = 32 * 2**20  # of recent answers that are handed out at once


class Service:
    """One worker's models and work queues; the routes share it.

    `served`: the models by name. `default`: that of requests that name none.

    What is asynchronous here raises BusyError if too much is waiting already.
    """

    def __init__(self, settings: Settings, metrics: Metrics, tracing: Tracing) -> None:
        self.settings = settings
        self.metrics = metrics
        found = [Served(settings, source, metrics.expect) for source in settings.sources]
        self.served, self.default = {one.name: one for one in found}, found[0]
        self.tracing = tracing
        self.stopping = False
        self._largest = settings.max_image_pixels
        self._read_file = partial(read_file, max_pixels=self._largest)
        self._read_batch = partial(read_batch, max_pixels=self._largest)
        self._threshold = np.float32(settings.confidence_threshold)
        metrics.describe_model(lambda: state(self.served.values(), settings, self.ready))

    def open(self) -> None:
        """Open threads and files; `close` is its counterpart."""
        settings = self.settings
        most = MAX_WAITING_PICTURES * max(self._largest, EXPLANATION_PIXELS)
        self._queues = WorkQueues(max(most, MAX_ITEMS * MIN_PICTURE_PIXELS))
        self._inference = Inference(settings.inference_threads)

    def close(self) -> None:
        """Close threads and files."""
        self._queues.close()
        self._inference.close()
        for served in self.served.values():
            served.close()
        self.tracing.close()

    @property
    def ready(self) -> bool:
        """Readiness: True if a load balancer should send new requests here."""
        return self.can_predict(self.default)

    def can_predict(self, served: Served) -> bool:
        """Return whether this model answers now, and the service is not stopping."""
        return served.models.current is not None and not self.stopping

    def image_sizes(self) -> dict[str, int]:
        """Return how many numbers an image of each model has; as a digit if none is loaded."""
        return {
            name: (served.models.current.images if served.models.current else DIGITS).size
            for name, served in self.served.items()
        }

    def choose(self, name: str) -> Served:
        """Return the model of that name, or the default for no name."""
        if not name:
            return self.default
        if name not in self.served:
            served = ", ".join(self.served)
            raise UnknownModelError(f"model {name[:64]!r} is not served; served: {served}")
        return self.served[name]

    async def parse(self, body: bytes, parse: Callable[[], Result], check: Check) -> Result:
        """Parse a body with `parse`; a large body in a work queue, beside the event loop."""
        with self.tracing.span("decode", bytes=len(body)):
            if len(body) <= SMALL_BODY_BYTES:
                return parse()
            return await self._queues.run(self._queues.bodies, parse, len(body), 0, check)

    async def run_batch(self, size: int, work: Callable[[], Result], check: Check) -> Result:
        """Do the work on a tensor of `size` bytes in a work queue, beside the event loop."""
        pixels = size * PIXELS_PER_TENSOR_BYTE
        return await self._queues.run(self._queues.batches, work, size, pixels, check)

    async def predict_file(
        self,
        content: bytes,
        model: Model,
        request: RequestContext,
        *,
        draft: bool = False,
        show: bool = False,
        check: Check | None = None,
    ) -> Answer:
        """Return the prediction for an image file; `show` adds the model's input image.

        The answer for a draft is neither counted nor kept: a half-drawn digit is no sign of data
        drift. Raises the ImageError of `read_file`.
        """
        started = perf_counter()
        reading = await self._read(content, model, check)
        return self._answer_one(reading, model, request, started, draft=draft, show=show)

    async def explain_file(
        self,
        content: bytes,
        model: Model,
        request: RequestContext,
        *,
        draft: bool,
        show: bool,
        check: Check,
    ) -> Answer:
        """Return the answer of `predict_file` with what it rests on, and the steps to it."""
        started = perf_counter()

        def work() -> Answer:
            with self.tracing.span("normalise", images=1, bytes=len(content)):
                reading = self._read_file(content, preparation=model.predictor.preparation)
            answer = self._answer_one(reading, model, request, started, draft=draft, show=show)
            with self.tracing.span("explain", version=model.version):
                place = model.images.labels.index(answer["prediction"])
                return answer | explain(reading, model.predictor, place)

        pixels = EXPLANATION_PIXELS + declared_pixels(content, self._largest)
        return await self._queues.run(self._queues.batches, work, len(content), pixels, check)

    async def recognise(self, content: bytes, model: Model) -> Seen:
        """Return the model's prediction for an image file, without counting or keeping it."""
        image = (await self._read(content, model)).normalised.image
        place = int(model.predictor.probabilities(image[None])[0].argmax())
        return Seen(image, model.images.labels[place], model.version, model.images)

    async def _read(self, content: bytes, model: Model, check: Check | None = None) -> Reading:
        work = partial(self._read_file, content, preparation=model.predictor.preparation)
        with self.tracing.span("normalise", images=1, bytes=len(content)):
            if is_small_png(content, SMALL_PNG_PIXELS):
                return work()
            pixels = max(MIN_PICTURE_PIXELS, declared_pixels(content, self._largest))
            return await self._queues.run(self._queues.pictures, work, len(content), pixels, check)

    def _answer_one(
        self,
        reading: Reading,
        model: Model,
        request: RequestContext,
        started: float,
        *,
        draft: bool,
        show: bool,
    ) -> Answer:
        image = reading.normalised.image
        with self.tracing.span("infer", images=1, version=model.version):
            (probabilities,), (likelihood,) = infer(model.predictor, image[None])
        answer = self._answer(probabilities, likelihood, model, request.id)
        if not draft:
            self._keep(answer, image, model, perf_counter() - started, request.owner)
        answer["box"] = sides(reading.box)
        if show:
            answer["image"] = data_uri(image)
        return answer

    async def predict_files(
        self,
        contents: Sequence[bytes | Exception],
        model: Model,
        request: RequestContext,
        check: Check,
    ) -> list[Answer | Exception]:
        """Return a prediction for each image file, or the exception if it failed.

        `contents` may hold exceptions, which are returned in their places.
        """
        capped, pixels = within_limit(contents, self._largest)

        def work() -> list[Answer | Exception]:
            started = perf_counter()
            found: list[Read | Exception] = []
            begun: list[Future[Found]] = []
            with self.tracing.span("normalise", images=len(capped)):
                for start in range(0, len(capped), CHUNK):
                    found += self._read_batch(
                        capped[start : start + CHUNK], preparation=model.predictor.preparation
                    )
                    images = [each[0] for each in found[start:] if not isinstance(each, Exception)]
                    begun += self._inference.begin(model.predictor, images)
            read = [each for each in found if not isinstance(each, Exception)]
            answers = self._answer_all([image for image, _ in read], begun, model, request, started)
            for answer, (_, box) in zip(answers, read, strict=True):
                answer["box"] = sides(box)
            rest = iter(answers)
            return [each if isinstance(each, Exception) else next(rest) for each in found]

        size = sum(len(content) for content in capped if isinstance(content, bytes))
        pixels = max(pixels, MIN_PICTURE_PIXELS * len(capped))
        return await self._queues.run(self._queues.batches, work, size, pixels, check)

    def predict_images(
        self, images: Sequence[Image], model: Model, request: RequestContext, started: float
    ) -> list[Answer]:
        """Return the predictions for prepared images; the n-th has the id `request.id.n`.

        `started`: the value of `perf_counter` when work on them began.
        """
        begun = self._inference.begin(model.predictor, images)
        return self._answer_all(images, begun, model, request, started)

    def _answer_all(
        self,
        images: Sequence[Image],
        begun: list[Future[Found]],
        model: Model,
        request: RequestContext,
        started: float,
    ) -> list[Answer]:
        """Return the predictions for the images of which inference has begun."""
        with self.tracing.span("infer", images=len(images), version=model.version):
            found = [each.result() for each in begun]
        if not found:
            return []
        seconds = (perf_counter() - started) / len(images)
        rows, likelihoods = map(np.concatenate, zip(*found, strict=True))
        answers, owner = [], request.owner
        for place, (image, row, likelihood) in enumerate(
            zip(images, rows, likelihoods, strict=True)
        ):
            answer = self._answer(row, likelihood, model, f"{request.id}.{place}")
            self._keep(answer, image, model, seconds, owner)
            answers.append(answer)
        return answers

    def _answer(
        self, probabilities: Floats, likelihood: np.float32, model: Model, request_id: str
    ) -> Answer:
        """Return the answer; `likelihood` is NaN (null in JSON) if the model has none."""
        place = int(probabilities.argmax())
        confidence, detector = probabilities[place], model.predictor.likelihood
        return {
            "prediction": model.images.labels[place],
            "confidence": confidence,
            "probabilities": probabilities,
            "uncertain": bool(confidence < self._threshold),
            "digit_likelihood": likelihood,
            "not_digit": detector is not None and bool(likelihood < detector.threshold),
            "model_version": model.version,
            "request_id": request_id,
        }

    def _keep(self, answer: Answer, image: Image, model: Model, seconds: float, owner: str) -> None:
        """Count the answer, which took `seconds`; keep it for feedback and the drift job."""
        self.metrics.predicted(answer, model.series, seconds)
        self.served[model.name].recent(model.images).add(answer, image, owner)

    async def window(self, served: Served, most: int) -> bytes:
        """Return the latest `most` answers of all workers, as a `Window` in an `.npz`."""
        recent = served.recent(served.models.choose(None).images)
        most = min(most, max(1, MAX_WINDOW_BYTES // recent.answer_size))
        size = most * recent.answer_size
        return await self._queues.run(
            self._queues.bodies, lambda: recent.window(most).npz(), size, MIN_PICTURE_PIXELS
        )
