"""The metrics of docs/MONITORING.md: of this process, or of all workers that share a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from math import isnan
from pathlib import Path
from typing import NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from serve.telemetry.counts import adding, observing

_LATENCY = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
_CONFIDENCE = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)
_LIKELIHOOD = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99, 1)
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


# All that an attempt to bring a version may end with.
SUCCESS, UNAVAILABLE, INVALID = "success", "registry_unavailable", "bundle_invalid"
UNEXPECTED, DIED = "unexpected_error", "puller_died"
OUTCOMES = (SUCCESS, UNAVAILABLE, INVALID, UNEXPECTED, DIED)


class Described(NamedTuple):
    """The labels of `model_info`."""

    model_name: str
    model_version: str
    run: str
    sha256: str


class State(NamedTuple):
    """What the process that is asked serves, and how well.

    `created`: seconds since 1970; when the version, or the bundle in a folder, was made.
    """

    ready: bool
    degraded: bool
    model: Described | None
    created: float


class Metrics:
    """The collectors of one application, in a registry of their own.

    `folder`: where the processes that serve together count, if `counts.share` was called with it.
    """

    def __init__(self, folder: Path | None = None) -> None:
        disable_created_metrics()  # a second series for each
        own = CollectorRegistry()
        version = ("model_version",)
        self._predictions = Counter(
            "predictions_total", "Answers.", (*version, "predicted_class"), registry=own
        )
        self._latency = Histogram(
            "prediction_latency_seconds",
            "Time to normalise and read one image.",
            version,
            buckets=_LATENCY,
            registry=own,
        )
        self._confidence = Gauge(
            "prediction_confidence",
            "Confidence of the latest answer.",
            version,
            multiprocess_mode="mostrecent",
            registry=own,
        )
        self._scores = Histogram(
            "prediction_confidence_score",
            "Confidence of the answers.",
            (*version, "predicted_class"),
            buckets=_CONFIDENCE,
            registry=own,
        )
        self._likelihoods = Histogram(
            "digit_likelihood_score",
            "How much what was sent looks like a digit.",
            version,
            buckets=_LIKELIHOOD,
            registry=own,
        )
        self._uncertain = Counter(
            "predictions_uncertain_total",
            "Answers of a confidence below CONFIDENCE_THRESHOLD.",
            version,
            registry=own,
        )
        self._not_digits = Counter(
            "predictions_not_digit_total",
            "Answers on what looks less like a digit than the model's threshold.",
            version,
            registry=own,
        )
        self._errors = Counter(
            "prediction_errors_total", "Images without an answer.", ("error_type",), registry=own
        )
        self._requests = Counter(
            "api_requests_total",
            "Requests.",
            ("method", "endpoint", "status_code"),
            registry=own,
        )
        for endpoint in ("/predict", "/predict/batch", "/feedback"):
            self.await_errors(endpoint)
        self._durations = Histogram(
            "request_duration_seconds",
            "Time from a request to the end of its response.",
            ("method", "endpoint"),
            buckets=_LATENCY,
            registry=own,
        )
        active = Gauge(
            "active_requests",
            "Requests in flight.",
            multiprocess_mode="sum",
            registry=own,
        )
        self._reloads = Counter(
            "model_reloads_total", "Attempts to bring a version.", ("outcome",), registry=own
        )
        for outcome in OUTCOMES:  # from 0, as errors
            self._reloads.labels(outcome)
        self._feedback = Counter(
            "feedback_total",
            "Feedback kept; a digit that is corrected counts again.",
            (*version, "correct"),
            registry=own,
        )
        active.set(0)  # a predecessor may have died in the middle of some
        self._active = adding(active)
        self._all = own
        if folder:
            self._all = CollectorRegistry()
            MultiProcessCollector(self._all, str(folder))
        self._answers: dict[tuple[str, int], Callable[[float, float], None]] = {}
        self._doubts: dict[str, Callable[[float, bool, bool], None]] = {}
        self._ends: dict[tuple[str, str, int], Callable[[float], None]] = {}

    def describe_model(self, state: Callable[[], State]) -> None:
        """Asks at each scrape what is served."""
        self._all.register(_ModelState(state))

    def await_errors(self, endpoint: str) -> None:
        """Lets an endpoint's errors begin at 0: of a first that is 1 at once no rate is seen."""
        for status in (500, 503):
            self._requests.labels("POST", endpoint, status)

    def expect(self, version: str) -> None:
        """Lets feedback on the version begin at 0, lest the first of either kind is in no rate."""
        for correct in ("true", "false"):
            self._feedback.labels(version, correct)

    def predicted(self, version: str, digit: int, confidence: float, seconds: float) -> None:
        """Counts an answer."""
        key = version, digit
        count = self._answers.get(key) or self._answers.setdefault(key, self._answer(*key))
        count(confidence, seconds)

    def _answer(self, version: str, digit: int) -> Callable[[float, float], None]:
        # Finding a labelled child costs more than counting: it is done once.
        predictions = adding(self._predictions.labels(version, digit))
        scores = observing(self._scores.labels(version, digit))
        latency = observing(self._latency.labels(version))
        latest = self._confidence.labels(version).set

        def count(confidence: float, seconds: float) -> None:
            predictions(1)
            scores(confidence)
            latency(seconds)
            latest(confidence)

        return count

    def doubted(self, version: str, likelihood: float, *, uncertain: bool, not_digit: bool) -> None:
        """Counts how sure an answer is, and of what; a likelihood of NaN is none."""
        count = self._doubts.get(version) or self._doubts.setdefault(version, self._doubt(version))
        count(likelihood, uncertain, not_digit)

    def _doubt(self, version: str) -> Callable[[float, bool, bool], None]:
        # Made at the first answer, so that a rate is 0, and not absent, before the first doubt.
        likelihoods = observing(self._likelihoods.labels(version))
        unsure = adding(self._uncertain.labels(version))
        refused = adding(self._not_digits.labels(version))

        def count(likelihood: float, uncertain: bool, not_digit: bool) -> None:
            if not isnan(likelihood):
                likelihoods(likelihood)
            if uncertain:
                unsure(1)
            if not_digit:
                refused(1)

        return count

    def began(self) -> None:
        """A request is in flight until it is `answered`."""
        self._active(1)

    def answered(self, method: str, endpoint: str, status: int, seconds: float) -> None:
        """Counts a request; `endpoint` is a route's template, never a raw path."""
        key = method, endpoint, status
        count = self._ends.get(key) or self._ends.setdefault(key, self._end(*key))
        count(seconds)
        self._active(-1)  # last: where none is active, all are counted

    def _end(self, method: str, endpoint: str, status: int) -> Callable[[float], None]:
        method = method if method in _METHODS else "other"
        requests = adding(self._requests.labels(method, endpoint, status))
        durations = observing(self._durations.labels(method, endpoint))

        def count(seconds: float) -> None:
            requests(1)
            durations(seconds)

        return count

    def failed(self, kind: str) -> None:
        """Counts an image without an answer."""
        self._errors.labels(kind).inc()

    def reloaded(self, outcome: str) -> None:
        """Counts an attempt to bring a version."""
        self._reloads.labels(outcome).inc()

    def given(self, version: str, *, correct: bool) -> None:
        """Counts a feedback."""
        self._feedback.labels(version, str(correct).lower()).inc()

    def render(self, accept: str) -> tuple[bytes, str]:
        """All metrics in a format that the scraper accepts, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._all), content_type


class _ModelState(Collector):
    """Made at each scrape: a gauge that is always 1 cannot forget a version by itself."""

    def __init__(self, state: Callable[[], State]) -> None:
        self._state = state

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        state = self._state()
        yield GaugeMetricFamily("model_ready", "Whether it can predict.", state.ready)
        yield GaugeMetricFamily(
            "model_degraded", "Whether the newest version may not be in service.", state.degraded
        )
        info = GaugeMetricFamily("model_info", "The model in service.", labels=Described._fields)
        created = GaugeMetricFamily(
            "model_created_timestamp_seconds",
            "When the version in service was made.",
            labels=("model_version",),
        )
        if state.model:
            info.add_metric(state.model, 1)
            created.add_metric((state.model.model_version,), state.created)
        yield info
        yield created
