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


def test_messages_count_against_the_limit(client):
    with client(rate_limit="2/minute").websocket_connect("/predict/stream") as socket:
        statuses = []
        for _ in range(3):
            socket.send_bytes(picture())
            statuses.append(socket.receive_json().get("status"))
    assert statuses == [None, None, 429]
