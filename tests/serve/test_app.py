import json
import logging
import shutil
from datetime import UTC, datetime

import pytest
from starlette.testclient import TestClient
from support.bundles import PNG, picture, text

from serve.app import create_app
from serve.http import errors
from serve.settings import VERSION
from serve.telemetry import logs
from serve.telemetry.metrics import Metrics
from serve.telemetry.request_context import RequestContext


@pytest.fixture
def api(client):
    return client()


def test_health_says_what_is_served(api):
    found = api.get("/health")
    assert found.status_code == 200
    assert {key: found.json()[key] for key in ("status", "model_loaded", "model_name")} == {
        "status": "healthy",
        "model_loaded": True,
        "model_name": "mnist-classifier",
    }
    assert api.get("/health/live").json() == {"status": "live"}
    assert api.get("/health/ready").json() == {"status": "ready"}
    info = api.get("/api/info").json()
    assert info["models"][0]["version"] == found.json()["model_version"]
    assert info["models"][0]["card"] == "a model"
    assert info["limits"]["max_batch"] == 256


@pytest.mark.parametrize(("name", "card"), [("README.md", "a model"), ("notes.md", None)])
def test_bundles_of_before_have_their_card_elsewhere_or_none(client, made, tmp_path, name, card):
    bundle = shutil.copytree(made[3], tmp_path / "before")
    (bundle / "model_card.md").rename(bundle / name)
    api = client(model_uri=str(bundle))
    assert api.get("/api/info").json()["models"][0]["card"] == card


def test_without_a_model_nothing_is_predicted_but_the_process_lives(client, tmp_path):
    api = client(model_uri=str(tmp_path / "nothing"))
    assert api.get("/health/live").status_code == 200
    assert api.get("/health/ready").status_code == 503
    health = api.get("/health")
    assert health.status_code == 503
    assert health.json()["status"] == "degraded"
    assert health.json()["model_version"] is None
    for refused in (
        api.post("/predict", content=picture(), headers=PNG),
        api.post("/predict/batch", json={"images": [text(picture())]}),
        api.get("/v2/models/mnist-classifier"),
    ):
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        assert refused.json()["detail"] == "no model is loaded yet"
    metrics = api.get("/metrics").text
    assert "model_info{" not in metrics
    assert "model_created_timestamp_seconds{" not in metrics
    assert "\nmodel_ready 0.0\nmodel_degraded 1.0\n" in _values(metrics)


def _values(metrics):
    return "\n" + "".join(f"{line}\n" for line in metrics.splitlines() if line[0] != "#")


def test_a_service_that_stops_is_not_ready_but_answers(api):
    api.app.service.stopping = True
    assert api.get("/health/ready").status_code == 503
    assert "\nmodel_ready 0.0\nmodel_degraded 0.0\n" in _values(api.get("/metrics").text)
    assert api.post("/predict", content=picture(), headers=PNG).status_code == 200


def test_a_fault_of_ours_says_nothing_of_our_insides(api, monkeypatch, caplog):
    def broken(version):
        raise KeyError("inside")

    monkeypatch.setattr(api.app.service.default.models, "choose", broken)
    failed = api.post("/predict", content=picture(), headers=PNG | {"x-request-id": "this"})
    assert failed.status_code == 500
    assert "inside" not in failed.text
    assert "request this failed" in caplog.text
    assert caplog.records[-1].request_id == "this"
    monkeypatch.setattr(api.app.service.metrics, "render", broken)
    failed = api.get("/metrics", headers={"x-request-id": "that"})
    assert failed.status_code == 500
    assert failed.json() == {"detail": "internal error; the log has the request's id"}
    assert caplog.text.count("request that failed") == 1


def test_a_fault_of_ours_is_logged_with_its_trace(caplog):
    scope = {"type": "http", "method": "POST", "path": "/predict"}
    scope["headers"] = [(b"x-request-id", b"this")]
    RequestContext(scope).trace_id = "4bf9"
    assert errors.response(KeyError("inside"), scope, Metrics()).status_code == 500
    entry = json.loads(logs.JsonFormatter().format(caplog.records[-1]))
    assert (entry["request_id"], entry["trace_id"]) == ("this", "4bf9")
    assert "inside" in entry["exception"]


def test_what_is_no_prediction_is_no_failed_prediction(api):
    assert api.get("/predict").status_code == 405
    assert api.post("/predict/nothing").status_code == 404
    assert "prediction_errors_total{" not in api.get("/metrics").text


def test_a_client_who_leaves_before_its_body_is_read_counts_as_499(api):
    async def gone():
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": []}
    api.portal.call(api.app, scope | {"query_string": b""}, gone, None)
    counted = 'endpoint="/predict",method="POST",status_code="499"} 1.0'
    assert counted in api.get("/metrics").text


def test_probes_leave_no_trace(api, capfd):
    for path in ("/health", "/health/live", "/health/ready", "/metrics", "/v2/health/ready"):
        assert api.get(path).status_code == 200
    lines = api.get("/metrics").text.splitlines()
    assert {line[-4:] for line in lines if line.startswith("api_requests_total{")} == {" 0.0"}
    assert '"message":"request"' not in capfd.readouterr().out


def test_what_alerts_ask_for_begins_at_0(api):
    """Of a series whose first value is seen as 1 there is no rate."""
    lines = api.get("/metrics").text.splitlines()
    version = api.get("/health").json()["model_version"]
    for correct in ("true", "false"):
        assert f'feedback_total{{correct="{correct}",model_version="{version}"}} 0.0' in lines
    infer = "/v2/models/mnist-classifier/infer"
    version_infer = infer.replace("/infer", "/versions/{version}/infer")
    for endpoint in ("/predict", "/predict/batch", "/explain", infer, version_infer, "/feedback"):
        for status in (500, 503):
            labels = f'endpoint="{endpoint}",method="POST",status_code="{status}"'
            assert f"api_requests_total{{{labels}}} 0.0" in lines


def test_a_caller_may_choose_the_id_if_there_is_room_for_a_number_after_it(api):
    for given in ("Root=1-67891233-abcdef", "00-" + "f" * 32 + "-" + "a" * 16 + "-01", "x" * 56):
        answer = api.get("/api/info", headers={"x-request-id": given})
        assert answer.headers["x-request-id"] == given
    for given in ("", "x" * 57, "a b", "a\tb", "<script>", '"'):
        answer = api.get("/api/info", headers={"x-request-id": given})
        assert len(answer.headers["x-request-id"]) == 24
    batch = {"images": [text(picture())] * 2}
    answer = api.post("/predict/batch", json=batch, headers={"x-request-id": "x" * 56}).json()
    for one in answer["predictions"]:
        given = api.post("/feedback", json={"request_id": one["request_id"], "label": 3})
        assert given.status_code == 200, given.text


def test_a_line_on_a_terminal_is_one_line():
    entry = {"time": datetime.now(UTC), "method": "GET", "status": 404, "duration_ms": 1.0}
    line = logs._line({**entry, "path": "/x\n12:00 INFO forged\x1b[31m", "request_id": "a"})
    assert line.endswith("GET /x\\n12:00 INFO forged\\x1b[31m 404 1.0 ms a\n")
    assert line.count("\n") == 1
    traced = logs._line({**entry, "path": "/x", "request_id": "a", "trace_id": "4bf9"})
    assert traced.endswith("GET /x 404 1.0 ms a 4bf9\n")


def test_when_too_much_waits_more_is_refused(api):
    api.app.service._queues._waiting = 2**30
    refused = api.post("/predict", content=picture(300), headers=PNG)
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert api.post("/predict", content=picture(), headers=PNG).status_code == 200


def test_three_applications_in_one_process_do_not_count_together(settings, tmp_path):
    def metrics(place):
        with TestClient(create_app(settings(state_dir=tmp_path / str(place)))) as api:
            for _ in range(place):
                api.post("/predict", content=picture(), headers=PNG)
            return api.get("/metrics").text

    for place in (1, 2, 3):
        assert f'endpoint="/predict",method="POST",status_code="200"}} {place}.0' in metrics(place)


def test_metrics_are_those_of_the_contract_with_bounded_labels(api):
    for number in range(20):
        api.get(f"/nothing/{number}")
        api.request(f"STRANGE{number}", "/predict")
    api.post("/predict", content=picture(), headers=PNG)
    api.post("/predict", content=b"x", headers=PNG)
    text_of = api.get("/metrics").text
    version = api.get("/health").json()["model_version"]
    for line in (
        f'predictions_total{{model_version="{version}",predicted_class="3"}} 1.0',
        f'prediction_latency_seconds_count{{model_version="{version}"}} 1.0',
        f'prediction_confidence{{model_version="{version}"}} 0.',
        f'prediction_confidence_score_count{{model_version="{version}",predicted_class="3"}} 1.0',
        'prediction_errors_total{error_type="not_an_image"} 1.0',
        'api_requests_total{endpoint="unmatched",method="GET",status_code="404"} 20.0',
        'api_requests_total{endpoint="/predict",method="other",status_code="405"} 20.0',
        'request_duration_seconds_count{endpoint="/predict",method="POST"} 2.0',
        "active_requests 0.0",
        'model_reloads_total{outcome="success"} 1.0',
        'model_reloads_total{outcome="bundle_invalid"} 0.0',
        "model_ready 1.0",
        "model_degraded 0.0",
        f'build_info{{commit="unknown",version="{VERSION}"}} 1.0',
        f'model_info{{model_name="mnist-classifier",model_version="{version}",precision="float32",'
        'run="3",sha256="',
    ):
        assert line in text_of, line
    assert "_created" not in text_of.replace("model_created_timestamp_seconds", "")
    opened = api.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert opened.text.endswith("# EOF\n")


def test_what_is_logged_cannot_break_out_of_its_line(settings):
    formatter = logs.JsonFormatter()
    record = logging.LogRecord("a", logging.INFO, "f", 1, 'a "quote"\nand line', None, None)
    assert json.loads(formatter.format(record))["message"] == 'a "quote"\nand line'
    assert "\n" not in formatter.format(record)
    record.request_id, record.level = "mine", "forged"  # as `extra` does
    entry = json.loads(formatter.format(record))
    assert (entry["request_id"], entry["level"]) == ("mine", "info")
    assert set(entry) == {"time", "level", "logger", "message", "pid", "request_id"}
    assert logs.requests(settings(log_level="WARNING"), lost=None) is None


def test_errors_of_the_framework_look_the_same(api):
    for response, status in (
        (api.get("/nothing"), 404),
        (api.get("/predict"), 405),
        (api.post("/health"), 405),
    ):
        assert response.status_code == status
        assert set(response.json()) == {"detail"}
        assert response.headers["x-content-type-options"] == "nosniff"
    assert api.get("/predict").headers["allow"] == "POST"
