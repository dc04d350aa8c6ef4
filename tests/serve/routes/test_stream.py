import json
import re

import pytest
from starlette.websockets import WebSocketDisconnect
from support.bundles import picture, text


def test_errors_leave_the_connection_open(client):
    with client().websocket_connect("/predict/stream") as socket:
        for sent, status in (("{}", 422), ("nonsense", 422), ('{"image": "%"}', 400)):
            socket.send_text(sent)
            assert socket.receive_json()["status"] == status
        socket.send_bytes(b"no image")
        assert socket.receive_json() == {"detail": "the bytes are not an image", "status": 400}
        socket.send_json({"image": text(picture())})
        assert socket.receive_json()["prediction"] == 3


def test_a_streamed_picture_takes_feedback(client):
    api = client()
    with api.websocket_connect("/predict/stream") as socket:
        socket.send_bytes(picture())
        request_id = socket.receive_json()["request_id"]
    given = api.post("/feedback", json={"request_id": request_id, "label": 3})
    assert given.json()["correct"] is True


def test_what_is_still_being_drawn_is_answered_and_neither_counted_nor_kept(client):
    api = client()
    draft = {"image": text(picture()), "draft": True}

    def counted():
        lines = api.get("/metrics").text.splitlines()
        names = ("predictions_total{", "prediction_confidence_score_count{")
        names += ("digit_likelihood_score_count{", "prediction_latency_seconds_count{")
        return [float(line.split()[-1]) for line in lines if line.startswith(names)]

    with api.websocket_connect("/predict/stream") as socket:
        for _ in range(3):
            socket.send_json(draft)
            answer = socket.receive_json()
            assert answer["prediction"] == 3
            given = {"request_id": answer["request_id"], "label": 3}
            assert api.post("/feedback", json=given).status_code == 404
        assert api.post("/predict", json=draft).json()["prediction"] == 3
        assert counted() == []
        socket.send_bytes(picture())
        given = {"request_id": socket.receive_json()["request_id"], "label": 3}
        assert counted() == [1, 1, 1, 1]
        assert api.post("/feedback", json=given).status_code == 200


@pytest.mark.parametrize("origin", ["https://friend.example", "http://testserver"])
def test_pages_of_named_origins_may_connect(client, origin):
    api = client(cors_origins="https://friend.example")
    with api.websocket_connect("/predict/stream", headers={"origin": origin}):
        pass


def test_a_key_comes_as_header_or_first_message(client):
    api = client(api_keys="secret")
    with api.websocket_connect("/predict/stream", headers={"x-api-key": "secret"}) as socket:
        socket.send_bytes(picture())
        assert socket.receive_json()["prediction"] == 3
    with api.websocket_connect("/predict/stream") as socket:
        socket.send_json({"api_key": "secret"})
        socket.send_bytes(picture())
        assert socket.receive_json()["prediction"] == 3
    for wrong in ('{"api_key": "guess"}', "[]", "nonsense"):
        with api.websocket_connect("/predict/stream") as socket:
            socket.send_text(wrong)
            with pytest.raises(WebSocketDisconnect) as caught:
                socket.receive_json()
            assert caught.value.code == 1008


@pytest.mark.parametrize("origin", ["https://evil.example", "http://[", "null", "nonsense"])
def test_other_origins_may_not_connect(client, origin):
    with (
        pytest.raises(WebSocketDisconnect) as caught,
        client().websocket_connect("/predict/stream", headers={"origin": origin}),
    ):
        pass
    assert caught.value.code == 1008


def counted(api, name):
    """The values of a metric of the WebSocket, by status; without those that are 0."""
    labels = r'endpoint="/predict/stream",method="WS"(?:,status_code="(\d+)")?'
    found = re.findall(rf"^{name}{{{labels}}} (\S+)$", api.get("/metrics").text, re.MULTILINE)
    return {status: float(value) for status, value in found if float(value)}


def logged(capfd):
    entries = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    return [(e["path"], e["status"]) for e in entries if e.get("method") == "WS"]


def test_each_picture_is_counted_and_logged_as_a_request(client, capfd):
    api = client(log_format="json")
    with api.websocket_connect("/predict/stream", headers={"x-request-id": "mine"}) as socket:
        for sent in (picture(), b"no image", picture(), picture(300)):
            socket.send_bytes(sent)
            socket.receive_json()
        socket.send_json({"image": text(picture()), "draft": True})
        assert socket.receive_json()["request_id"] == "mine.5"
    assert counted(api, "api_requests_total") == {"200": 4, "400": 1}
    assert counted(api, "request_duration_seconds_count") == {"": 5}
    assert "active_requests 0.0" in api.get("/metrics").text
    assert logged(capfd) == [("/predict/stream", status) for status in (200, 400, 200, 200, 200)]


def test_a_picture_is_in_flight_until_it_is_answered(client):
    api = client()
    seen = []
    predict = api.app.service.predict_file

    async def watched(*given, **options):
        seen.append(api.app.service.metrics._active._value.get())
        return await predict(*given, **options)

    api.app.service.predict_file = watched
    with api.websocket_connect("/predict/stream") as socket:
        socket.send_bytes(picture())
        socket.receive_json()
    assert seen == [1]


def test_a_fault_of_ours_is_answered_counted_and_logged(client, capfd, caplog):
    api = client(log_format="json")
    with api.websocket_connect("/predict/stream") as socket:
        api.app.service.default.models.choose = None
        socket.send_bytes(picture())
        assert socket.receive_json()["status"] == 500
        del api.app.service.default.models.choose
        socket.send_bytes(picture())
        assert socket.receive_json()["prediction"] == 3
    assert counted(api, "api_requests_total") == {"200": 1, "500": 1}
    assert "TypeError" in caplog.text + capfd.readouterr().out


@pytest.mark.fault(
    "keys guessed by WebSocket",
    "0",
    'closed, after three with "too many"; counted and logged as 401 and 429',
)
def test_wrong_keys_count_against_the_limit_of_their_address(client, capfd):
    api = client(log_format="json", rate_limit="3/minute", api_keys="one")
    reasons = []
    for number in range(5):
        with api.websocket_connect("/predict/stream") as socket:
            socket.send_json({"api_key": f"guess {number}"})
            with pytest.raises(WebSocketDisconnect) as caught:
                socket.receive_json()
        assert caught.value.code == 1008
        reasons.append("too many" in caught.value.reason)
    assert reasons == [False, False, False, True, True]
    assert api.post("/predict", headers={"x-api-key": "guess"}).status_code == 429  # shared
    assert counted(api, "api_requests_total") == {"401": 3, "429": 2}
    assert [status for _, status in logged(capfd)] == [401, 401, 401, 429, 429]
    with api.websocket_connect("/predict/stream") as socket:
        socket.send_json({"api_key": "one"})  # pragma: allowlist secret
        socket.send_bytes(picture())
        assert socket.receive_json()["prediction"] == 3


def test_a_handshake_that_is_refused_is_counted_and_logged(client, capfd):
    api = client(log_format="json")
    for path, headers in (("/predict/stream", {"origin": "https://evil.example"}), ("/no", {})):
        with (
            pytest.raises(WebSocketDisconnect),
            api.websocket_connect(path, headers=headers),
        ):
            pass
    assert counted(api, "api_requests_total") == {"403": 1}
    assert logged(capfd) == [("/predict/stream", 403), ("/no", 403)]


def test_messages_count_against_the_limit(client):
    with client(rate_limit="2/minute").websocket_connect("/predict/stream") as socket:
        statuses = []
        for _ in range(3):
            socket.send_bytes(picture())
            statuses.append(socket.receive_json().get("status"))
    assert statuses == [None, None, 429]
