"""Prometheus metrics (docs/MONITORING.md) of this process, or of all that share a folder.

Processes share by prometheus_client's multiprocess mode.
"""

import os
from collections.abc import Callable, Mapping
from functools import cache, partial
from math import isnan
from pathlib import Path
from typing import Any, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    values,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from serve.telemetry.allocated_files import AllocatedValues
from serve.telemetry.process_metrics import ProcessMetrics
from serve.telemetry.state_gauges import State, StateGauges

_LATENCY = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
_CONFIDENCE = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)
_LIKELIHOOD = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99, 1)
_METHODS = {"WS", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

# Settings because of which a connection is refused or closed.
_LIMITS = {"max_connections", "max_connections_per_address", "max_body_memory"}
_LIMITS |= {"head_seconds", "body_seconds", "idle_seconds"}

_Labelled = TypeVar("_Labelled", Counter, Gauge, Histogram)

# Outcomes of an attempt to load a model version.
SUCCESS, UNAVAILABLE, INVALID = "success", "registry_unavailable", "bundle_invalid"
UNEXPECTED, DIED = "unexpected_error", "puller_died"
OUTCOMES = (SUCCESS, UNAVAILABLE, INVALID, UNEXPECTED, DIED)

# Why a process is replaced.
DEAD, HUNG = "died", "hung"
REASONS = (DEAD, HUNG)


def share(folder: Path, process: str) -> None:
    """Let this process count in the folder that all processes of the service share.

    Call it before any metric is made. No other running process may have the name `process`. The
    replacement of a dead process takes over its name: it counts on in the same files, so the folder
    does not grow.
    """
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.MmapedDict = AllocatedValues  # type: ignore[attr-defined, assignment]
    values.ValueClass = values.MultiProcessValue(lambda: process)


def forget(folder: Path, process: str) -> None:
    """Remove the live gauges of a dead process, such as its requests in flight."""
    mark_process_dead(process, str(folder))


class Metrics:
    """The collectors of one application, in a registry of their own.

    `folder`: where the processes of the service count, if `share` was called with it.
    """

    def __init__(self, folder: Path | None = None) -> None:
        disable_created_metrics()  # a second series for each
        own = CollectorRegistry()
        self._add_prediction_metrics(own)
        self._add_request_metrics(own)
        self._all = own
        if folder:
            self._all = CollectorRegistry()
            MultiProcessCollector(self._all, str(folder))
            self._all.register(ProcessMetrics())

    def _add_prediction_metrics(self, own: CollectorRegistry) -> None:
        add = partial(_labelled, own)
        version, digit = "model_version", "predicted_class"
        self._predictions = add(Counter, "predictions_total", "Predictions.", version, digit)
        name, text = "prediction_latency_seconds", "Time to normalise and classify one image."
        self._latency = add(Histogram, name, text, version, buckets=_LATENCY)
        name, text = "prediction_confidence", "Confidence of the latest prediction."
        self._confidence = add(Gauge, name, text, version, multiprocess_mode="mostrecent")
        name, text = "prediction_confidence_score", "Confidence of the predictions."
        self._scores = add(Histogram, name, text, version, digit, buckets=_CONFIDENCE)
        text = "Digit likelihood of the images (low: out of distribution, not a digit)."
        name = "digit_likelihood_score"
        self._likelihoods = add(Histogram, name, text, version, buckets=_LIKELIHOOD)
        text = "Predictions with a confidence below CONFIDENCE_THRESHOLD."
        self._uncertain = add(Counter, "predictions_uncertain_total", text, version)
        text = "Predictions with a digit likelihood below the model's threshold."
        self._not_digits = add(Counter, "predictions_not_digit_total", text, version)
        text = "Images without a prediction, by error."
        self._errors = add(Counter, "prediction_errors_total", text, "error_type")

    def _add_request_metrics(self, own: CollectorRegistry) -> None:
        add = partial(_labelled, own)
        route = ("method", "endpoint")
        text = "Requests and pictures on WebSockets, without health probes and scrapes."
        self._requests = add(Counter, "api_requests_total", text, *route, "status_code")
        text = "Time from the arrival of a request to the end of its response."
        name = "request_duration_seconds"
        self._durations = add(Histogram, name, text, *route, buckets=_LATENCY)
        self._active = Gauge(
            "active_requests", "Requests in flight.", multiprocess_mode="livesum", registry=own
        )
        self._connections = Gauge(
            "open_connections", "Open connections.", multiprocess_mode="livesum", registry=own
        )
        text = "Bytes of bodies that are held, of at most MAX_BODY_MEMORY."
        self._bodies = Gauge("body_memory_bytes", text, multiprocess_mode="livesum", registry=own)
        text = "Connections refused or closed because of a limit, by the setting."
        self._refused = add(Counter, "connections_refused_total", text, "reason")
        text = "Model load attempts, by outcome."
        self._reloads = add(Counter, "model_reloads_total", text, "outcome")
        text = "Feedback stored; a corrected label counts again."
        self._feedback = add(Counter, "feedback_total", text, "model_version", "correct")
        text = "Feedback stored that names no digit; `feedback_total` is without it."
        self._no_digits = add(Counter, "feedback_not_digit_total", text, "model_version")
        text = "Lines of the access log that could not be written."
        self._lost_lines = Counter("access_log_lost_lines_total", text, registry=own)
        text = "Processes that were replaced, by why."
        self._restarts = add(Counter, "worker_restarts_total", text, "process", "reason")
        # Series that alerts use start at 0: no rate is seen of a first value of 1.
        for endpoint in ("/predict", "/predict/batch", "/explain", "/feedback"):
            self.await_errors(endpoint)
        self.await_errors("/predict/stream", "WS")
        self._requests("POST", "/feedback", 507)
        for limit in _LIMITS:
            self._refused(limit)
        for outcome in OUTCOMES:
            self._reloads(outcome)
        for process in ("worker", "puller"):
            for reason in REASONS:
                self._restarts(process, reason)

    def describe_model(self, state: Callable[[], State]) -> None:
        """Call `state` at each scrape for the model that is served, and the disk."""
        self._all.register(StateGauges(state))

    def await_errors(self, endpoint: str, method: str = "POST") -> None:
        """Let the endpoint's errors start at 0."""
        for status in (500, 503):
            self._requests(method, endpoint, status)

    def expect(self, version: str) -> None:
        """Let the counters of feedback on the version start at 0."""
        for correct in ("true", "false"):
            self._feedback(version, correct)
        self._no_digits(version)

    def predicted(self, answer: Mapping[str, Any], version: str, seconds: float) -> None:
        """Count an answer of `/predict`, its confidence and its doubts.

        `version`: the model's series.
        """
        digit = answer["prediction"]
        confidence, likelihood = float(answer["confidence"]), float(answer["digit_likelihood"])
        self._predictions(version, digit).inc()
        self._scores(version, digit).observe(confidence)
        self._latency(version).observe(seconds)
        self._confidence(version).set(confidence)
        # All series start with the first prediction, so that their rates are 0 before a doubt.
        likelihoods = self._likelihoods(version)
        if not isnan(likelihood):  # NaN: the model has none
            likelihoods.observe(likelihood)
        for doubts, doubt in ((self._uncertain, "uncertain"), (self._not_digits, "not_digit")):
            child = doubts(version)
            if answer[doubt]:
                child.inc()

    def began(self) -> None:
        """Count a request as in flight, until it is `answered`."""
        self._active.inc()

    def answered(self, method: str, endpoint: str, status: int, seconds: float) -> None:
        """Count a request; `endpoint` is a route's template, never a raw path."""
        method = method if method in _METHODS else "other"
        self._requests(method, endpoint, status).inc()
        self._durations(method, endpoint).observe(seconds)
        self._active.dec()  # last: where none is active, all are counted

    def lost_line(self) -> None:
        """Count a line of the access log that could not be written."""
        self._lost_lines.inc()

    def connected(self, number: int) -> None:
        """Set the number of open connections of this process."""
        self._connections.set(number)

    def holding(self, size: int) -> None:
        """Set the bytes of bodies that this process holds."""
        self._bodies.set(size)

    def refused(self, reason: str) -> None:
        """Count a connection that was refused or closed because of a setting."""
        self._refused(reason).inc()

    def failed(self, kind: str) -> None:
        """Count an image without a prediction."""
        self._errors(kind).inc()

    def reloaded(self, outcome: str) -> None:
        """Count an attempt to load a model version."""
        self._reloads(outcome).inc()

    def restarted(self, process: str, reason: str) -> None:
        """Count the replacement of a process, `worker` or `puller`."""
        self._restarts(process, reason).inc()

    def given(self, version: str, *, correct: bool, digit: bool) -> None:
        """Count a feedback entry; one that names no digit says nothing about the accuracy."""
        right = str(correct).lower()
        (self._feedback(version, right) if digit else self._no_digits(version)).inc()

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics in a format that the scraper accepts, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._all), content_type


def _labelled(
    registry: CollectorRegistry,
    kind: type[_Labelled],
    name: str,
    text: str,
    *labels: str,
    **options: Any,  # noqa: ANN401 - of prometheus_client
) -> Callable[..., _Labelled]:
    """Return a function of label values that finds the metric's child for them.

    The children are cached: finding one in prometheus_client costs more than counting.
    """
    return cache(kind(name, text, labels, registry=registry, **options).labels)
