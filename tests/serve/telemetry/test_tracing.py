"""Traces against a real collector of OTLP/HTTP, and none of it where nobody collects."""

import socket
import subprocess
import sys
import time

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.bundles import PNG, picture, text
from support.service_process import ROOT, until
from support.web_server import Handler, serving
from websockets.sync.client import connect

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SERVER = 2  # SpanKind in the protocol


class Collector:
    """Keeps what is exported to it."""

    def __init__(self):
        self.requests = []
        kept = self.requests

        class Traces(Handler):
            def respond(self):
                assert self.path == "/v1/traces"
                kept.append(ExportTraceServiceRequest.FromString(self.body()))
                self.answer(200)

        self.handler = Traces

    def spans(self):
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def resources(self):
        return [about(r.resource) for request in self.requests for r in request.resource_spans]

    def traces(self):
        """The spans of each trace: that of the request, and those of its steps."""
        found = {}
        for span in self.spans():
            found.setdefault(span.trace_id, []).append(span)
        for spans in found.values():
            (request,) = (span for span in spans if span.kind == SERVER)
            steps = [span for span in spans if span is not request]
            assert {step.parent_span_id for step in steps} == {request.span_id}
            yield request, steps


def about(holder):
    """Attributes as a dict."""
    return {a.key: a.value.string_value or a.value.int_value for a in holder.attributes}


@pytest.fixture
def collector():
    collector = Collector()
    with serving(collector.handler) as server:
        collector.url = server.url
        yield collector


def traced(ready, endpoint, **more):
    return ready(
        OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
        OTEL_SERVICE_NAME="digits-under-test",
        OTEL_BSP_SCHEDULE_DELAY="100",
        **more,
    )


def ours(lines, path):
    return next(line for line in lines if line.get("path") == path)


def test_a_requests_spans_are_inside_the_callers_and_named_in_the_log(ready, collector):
    service = traced(ready, collector.url, API_WORKERS=2)
    sent = {**PNG, "traceparent": CALLER, "x-request-id": "mine"}
    with service.client() as api:
        assert api.post("/predict", content=picture(), headers=sent).status_code == 200
    until(lambda: len(collector.spans()) >= 4, service)
    assert service.stop() == 0
    spans = {span.name: span for span in collector.spans()}
    assert set(spans) == {"POST /predict", "decode", "normalise", "infer"}
    request = spans.pop("POST /predict")
    _, trace, parent, _ = CALLER.split("-")
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (trace, parent)
    assert request.kind == SERVER
    attributes = about(request)
    assert attributes["http.route"] == "/predict"
    assert attributes["http.response.status_code"] == 200
    assert attributes["digits.request_id"] == "mine"
    for span in spans.values():
        assert (span.trace_id, span.parent_span_id) == (request.trace_id, request.span_id)
        assert request.start_time_unix_nano <= span.start_time_unix_nano
        assert span.end_time_unix_nano <= request.end_time_unix_nano
    assert about(spans["infer"])["images"] == 1
    assert about(spans["infer"])["version"]
    assert about(spans["decode"])["bytes"] == len(picture())
    assert ours(service.lines(), "/predict")["trace_id"] == trace
    assert {found["service.name"] for found in collector.resources()} == {"digits-under-test"}


def test_what_is_done_in_other_threads_belongs_to_its_request(ready, collector):
    service = traced(ready, collector.url, API_WORKERS=1)
    with service.client() as api:
        batch = {"images": [text(picture())] * 3 + ["!"]}
        assert api.post("/predict/batch", json=batch).status_code == 200
        large = picture(1000)
        assert api.post("/predict", content=large, headers=PNG).status_code == 200
        assert api.post("/predict", content=b"no picture", headers=PNG).status_code == 400
    assert service.stop() == 0  # what is left is sent on the way out
    traces = list(collector.traces())
    assert not any(request.parent_span_id for request, _ in traces)
    shapes = sorted([request.name, *sorted(s.name for s in steps)] for request, steps in traces)
    assert shapes == [
        ["POST /predict", "decode", "infer", "normalise"],
        ["POST /predict", "decode", "normalise"],
        ["POST /predict/batch", "decode", "infer", "normalise"],
    ]
    images = {(span.name, about(span).get("images")) for span in collector.spans()}
    assert {("infer", 3), ("normalise", 4)} <= images
    # What the sender did wrong is no error of the service.
    assert {span.status.code for span in collector.spans()} == {0}
    assert not any(span.events for span in collector.spans())
    check_log(service, traces)


def check_log(service, traces):
    """That each request's line has the id of its trace."""
    logged = {line["trace_id"] for line in service.lines() if line.get("message") == "request"}
    assert logged == {request.trace_id.hex() for request, _ in traces}


def test_each_picture_on_a_websocket_is_a_trace(ready, collector):
    service = traced(ready, collector.url, API_WORKERS=1)
    with connect(service.url.replace("http", "ws") + "/predict/stream") as socket:
        for sent in (picture(), b"no picture"):
            socket.send(sent)
            socket.recv()
    assert service.stop() == 0
    traces = list(collector.traces())
    assert {request.name for request, _ in traces} == {"WS /predict/stream"}
    assert all({"decode", "normalise"} <= {step.name for step in steps} for _, steps in traces)
    statuses = [about(request)["http.response.status_code"] for request, _ in traces]
    assert sorted(statuses) == [200, 400]
    check_log(service, traces)


def test_probes_and_pages_of_metrics_are_no_traces(ready, collector):
    service = traced(ready, collector.url, API_WORKERS=1)
    with service.client() as api:
        for path in ("/health", "/metrics", "/health/live", "/api/info"):
            api.get(path)
    assert service.stop() == 0
    assert {span.name for span in collector.spans()} == {"GET /api/info"}


@pytest.mark.parametrize("silent", [False, True], ids=["refuses", "never answers"])
def test_a_collector_that_is_away_holds_nothing_up(ready, silent):
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # accepts, and says nothing
        port = deaf.getsockname()[1]
        if not silent:
            deaf.close()
        service = traced(ready, f"http://127.0.0.1:{port}", API_WORKERS=1)
        slowest = 0.0
        with service.client() as api:
            for _ in range(100):
                began = time.monotonic()
                assert api.post("/predict", content=picture(), headers=PNG).status_code == 200
                slowest = max(slowest, time.monotonic() - began)
        began = time.monotonic()
        assert service.stop() == 0
        stopped = time.monotonic() - began
    assert slowest < 1
    assert stopped < 0.3 + 1 + 2  # draining, what tracing may take, and a busy machine


def test_nobody_pays_who_does_not_trace(ready):
    program = (
        "import sys, fastapi; own = set(sys.modules)\n"  # imports OpenTelemetry's interface itself
        "import serve.__main__, serve.processes.worker\n"
        "from serve.app import create_app; create_app()\n"
        "new = sys.modules.keys() - own\n"
        "print([m for m in new if m.startswith(('opentel', 'serve.telemetry.otlp'))])"
    )
    clean = {"PATH": "/usr/bin:/bin", "MODEL_URI": ".", "STATE_DIR": "nowhere"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=clean, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr
    service = ready(API_WORKERS=1)
    with service.client() as api:
        api.post("/predict", content=picture(), headers={**PNG, "traceparent": CALLER})
    assert service.stop() == 0
    assert "trace_id" not in ours(service.lines(), "/predict")
