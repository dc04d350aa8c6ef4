import gzip
import io
import time

import numpy as np
import pytest
from PIL import Image
from support.bundles import PNG, picture, text, write_bundle

CURL = {"content-type": "application/x-www-form-urlencoded"}  # its default for all that it sends
GZIP = {"content-encoding": "gzip"}
KEYS = {
    *("prediction", "confidence", "probabilities", "uncertain"),
    *("digit_likelihood", "not_digit", "model_version", "request_id", "box"),
}


@pytest.fixture
def api(client):
    return client()


@pytest.mark.parametrize("side", [28, 8, 300, 1000])
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_one_answer_whichever_way_a_picture_comes(api, side, file_format):
    content = picture(side, file_format)
    responses = [
        api.post("/predict", json={"image": text(content)}),
        api.post("/predict", json={"image": f"data:image/png;base64,{text(content)}"}),
        api.post("/predict", content=content, headers={"content-type": "image/whatever"}),
        api.post("/predict", files={"file": ("digit", content)}),
        api.post("/predict", data={"image": f"data:image/png;base64,{text(content)}"}),
        api.post("/predict", content=content, headers=CURL),
        api.post("/predict", content=gzip.compress(content), headers=PNG | GZIP),
    ]
    batch = api.post("/predict/batch", json={"images": [text(content)] * 3}).json()
    with api.websocket_connect("/predict/stream") as socket:
        socket.send_bytes(content)
        streamed = socket.receive_json()
    answers = [response.json() for response in responses] + batch["predictions"] + [streamed]
    assert len({answer.pop("request_id") for answer in answers}) == len(answers)
    assert all(answer == answers[0] for answer in answers)
    assert answers[0]["prediction"] == 3


def test_an_answer_says_all_that_was_promised(api):
    response = api.post("/predict", content=picture(), headers=PNG)
    answer = response.json()
    assert set(answer) == KEYS
    assert answer["prediction"] == 3
    assert answer["box"] == {"left": 12, "top": 4, "width": 3, "height": 19}
    assert sum(answer["probabilities"]) == pytest.approx(1, abs=1e-5)
    assert max(answer["probabilities"]) == answer["confidence"] == answer["probabilities"][3]
    assert answer["uncertain"] is (answer["confidence"] < 0.7)
    assert response.headers["x-model-version"] == answer["model_version"]
    assert response.headers["x-request-id"] == answer["request_id"]


def test_an_answer_says_whether_the_picture_looks_like_a_digit(api):
    """`made` finds a likelihood in the brightness: 0.25 is its threshold."""
    version = api.get("/api/info").json()["models"][0]["version"]
    pictures = [block(4), block(16)]
    answers = [api.post("/predict", content=each, headers=PNG).json() for each in pictures]
    batch = api.post("/predict/batch", json={"images": list(map(text, pictures))}).json()
    with api.websocket_connect("/predict/stream") as socket:
        socket.send_bytes(pictures[1])
        streamed = socket.receive_json()
    assert 0 < answers[0]["digit_likelihood"] < 0.25 < answers[1]["digit_likelihood"] < 1
    assert [answer["not_digit"] for answer in answers] == [True, False]
    for answer, same in zip(answers, batch["predictions"], strict=True):
        assert same["digit_likelihood"] == pytest.approx(answer["digit_likelihood"])
        assert same["not_digit"] is answer["not_digit"]
    assert streamed["digit_likelihood"] == answers[1]["digit_likelihood"]
    counted = api.get("/metrics").text
    assert f'predictions_not_digit_total{{model_version="{version}"}} 2.0' in counted
    assert f'digit_likelihood_score_count{{model_version="{version}"}} 5.0' in counted
    assert f'digit_likelihood_score_bucket{{le="0.3",model_version="{version}"}} 2.0' in counted


def test_a_bundle_of_before_there_was_a_likelihood_answers_without(client, digit_file, tmp_path):
    api = client(model_uri=str(write_bundle(tmp_path / "old", digit_file(3))))
    answer = api.post("/predict", content=picture(), headers=PNG).json()
    assert answer["prediction"] == 3
    assert answer["digit_likelihood"] is None
    assert answer["not_digit"] is False
    batch = api.post("/predict/batch", json={"images": [text(picture())]}).json()
    assert batch["predictions"][0]["digit_likelihood"] is None
    lines = api.get("/metrics").text.splitlines()
    (line,) = (each for each in lines if each.startswith("digit_likelihood_score_count{"))
    assert line.endswith(" 0.0")


@pytest.mark.parametrize(("threshold", "doubts"), [(0.0, 0), (1.0, 1)])
def test_below_the_threshold_an_answer_is_uncertain_and_counted(client, threshold, doubts):
    api = client(confidence_threshold=threshold)
    answer = api.post("/predict", content=picture(), headers=PNG).json()
    assert answer["uncertain"] is bool(doubts)
    lines = api.get("/metrics").text.splitlines()
    (line,) = (each for each in lines if each.startswith("predictions_uncertain_total{"))
    assert line.endswith(f" {doubts}.0")


def block(width):
    """The file of a picture that is normalised already, with so many white columns."""
    pixels = np.zeros((28, 28), np.uint8)
    pixels[4:24, 14 - width // 2 : 14 + width // 2] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(("place", "name"), [("params", "version"), ("headers", "x-model-version")])
def test_a_loaded_version_may_be_chosen(api, place, name):
    version = api.get("/health").json()["model_version"]
    body = {"image": text(picture())}
    answer = api.post("/predict", json=body, **{place: {name: version}})
    assert answer.json()["model_version"] == version
    refused = api.post("/predict", json=body, **{place: {name: "9"}})
    assert refused.status_code == 404
    assert "'9' is not loaded; loaded: " in refused.json()["detail"]


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"", 400, "empty"),
        (b"no image", 400, "not an image"),
        (picture()[:60], 400, "damaged"),
        (b"<svg></svg>", 415, "SVG is not supported"),
        (picture(ink=255), 422, "no digit"),
        (picture(4100, "GIF"), 413, "more than 16,000,000 pixels"),
    ],
)
def test_a_picture_that_cannot_be_read_is_the_callers_fault(api, content, status, words):
    refused = api.post("/predict", content=content, headers=PNG)
    assert refused.status_code == status
    assert words in refused.json()["detail"]
    assert refused.headers["x-request-id"]


def test_a_bad_picture_of_a_batch_has_its_error_in_its_place(api):
    sent = [text(picture()), "%", text(b"no image"), text(picture(ink=255)), text(picture(60))]
    batch = api.post("/predict/batch", json={"images": sent})
    assert batch.status_code == 200
    found = batch.json()["predictions"]
    assert [one.get("status") for one in found] == [None, 400, 400, 422, None]
    assert all(one["detail"] for one in found[1:4])
    assert found[0]["prediction"] == found[4]["prediction"] == 3
    assert batch.headers["x-model-version"] == batch.json()["model_version"]
    (bad,) = api.post("/predict/batch", json={"images": ["%"]}).json()["predictions"]
    assert bad["status"] == 400


def test_a_large_batch_is_whole_and_a_larger_one_is_refused(client):
    api = client(max_batch=70)
    sent = [text(picture(28, ink=shade)) for shade in range(70)]
    started = time.perf_counter()
    found = api.post("/predict/batch", json={"images": sent}).json()["predictions"]
    alone = [api.post("/predict", json={"image": one}).json() for one in sent]
    assert [one["prediction"] for one in found] == [one["prediction"] for one in alone]
    lines = api.get("/metrics").text.splitlines()
    for name in ("prediction_latency_seconds_sum{", "request_duration_seconds_sum{"):
        total = sum(float(line.split()[-1]) for line in lines if line.startswith(name))
        assert 0 < total < time.perf_counter() - started
    for one, other in zip(found, alone, strict=True):
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)
    assert api.post("/predict/batch", json={"images": [*sent, sent[0]]}).status_code == 422
    assert api.post("/predict/batch", json={"images": []}).status_code == 422


def test_a_batch_has_no_more_pixels_than_the_largest_picture(client):
    api = client(max_image_pixels=40_000)
    full, most, small, too_large = (text(picture(side)) for side in (100, 96, 28, 201))
    sent = ["%", full, full, full, most, too_large, full, small]  # 40,000 pixels without 413
    found = api.post("/predict/batch", json={"images": sent}).json()["predictions"]
    assert [one.get("status") for one in found] == [400, *[None] * 4, 413, 413, None]
    assert "more than 40,000 pixels" in found[6]["detail"]
