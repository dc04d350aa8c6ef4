"""Several models of any labelled pictures in one service, beside the digits."""

import base64
import io
import json
import string

import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from support.bundles import COLOURS, PNG, bring, colour_picture, picture, text, write_labelled

from serve.models.bundle_cache import BundleCache
from serve.models.image_format import ImageFormat
from serve.prediction.feedback_store import NO_DIGIT, FeedbackStore

DIGITS, COLOUR, LETTER = "mnist-classifier", "colours", "letters"
SEEN = {"params": {"image": "true"}}


@pytest.fixture
def models(made, colours, letters):
    """The setting of the three models; the digits are the default."""
    return {"models": f"{DIGITS}={made[3]},{COLOUR}={colours},{LETTER}={letters}"}


@pytest.fixture
def api(client, models):
    return client(**models)


def predicted(api, content, model, **query):
    answer = api.post("/predict", params={"model": model, **query}, content=content, headers=PNG)
    assert answer.status_code == 200, answer.text
    return answer.json()


def grey(level, size=(50, 40)):
    file = io.BytesIO()
    Image.new("L", size, level).save(file, "PNG")
    return file.getvalue()


def test_each_colour_has_its_name(api):
    for place, (name, colour) in enumerate(COLOURS.items()):
        answer = predicted(api, colour_picture(colour), COLOUR)
        assert (answer["prediction"], len(answer["probabilities"])) == (name, 5)
        assert np.argmax(answer["probabilities"]) == place
        assert answer["box"] == {"left": 0, "top": 0, "width": 64, "height": 48}


def test_each_letter_has_its_name(api):
    for place, letter in enumerate(string.ascii_uppercase):
        assert predicted(api, grey(round((place + 0.5) * 255 / 26)), LETTER)["prediction"] == letter


def test_the_first_model_answers_where_none_is_named(api):
    answer = api.post("/predict", content=picture(), headers=PNG).json()
    assert answer == answer | predicted(api, picture(), DIGITS) | {
        "request_id": answer["request_id"]
    }
    assert answer["prediction"] == 3


def test_an_unknown_model_is_named_with_those_that_are_served(api):
    for method, path in (
        *[("POST", path) for path in ("/predict", "/predict/batch", "/explain", "/feedback")],
        *[("GET", path) for path in ("/api/window", "/api/reference")],
    ):
        found = api.request(
            method, path, params={"model": "birds"}, headers={"content-type": "application/json"}
        )
        assert found.status_code == 404
        assert found.json()["detail"] == (
            "model 'birds' is not served; served: mnist-classifier, colours, letters"
        )


def test_the_image_that_the_model_saw_is_in_colour(api):
    answer = predicted(api, colour_picture(COLOURS["blue"]), COLOUR, image="true")
    seen = Image.open(io.BytesIO(base64.b64decode(answer["image"].partition(",")[2])))
    assert (seen.mode, seen.size) == ("RGB", (32, 32))
    assert np.asarray(seen)[16, 16].tolist() == list(COLOURS["blue"])


def test_a_score_says_what_none_of_the_classes_is(api):
    assert not predicted(api, colour_picture(COLOURS["red"]), COLOUR)["not_digit"]
    odd = predicted(api, colour_picture((255, 0, 255)), COLOUR)
    assert odd["not_digit"]
    assert 0 <= odd["digit_likelihood"] < 0.25


@pytest.mark.parametrize(("asked", "given"), [(2, 2), (5, 5), (200, 5)])
def test_the_best_classes_are_named_in_order(api, asked, given):
    content = colour_picture((120, 90, 60))
    answer = predicted(api, content, COLOUR, top_k=asked)
    best = answer["top_k"]
    assert len(best) == given
    assert best[0] == {"label": answer["prediction"], "probability": answer["confidence"]}
    chances = dict(zip(COLOURS, answer["probabilities"], strict=True))
    expected = sorted(chances, key=chances.get, reverse=True)[:given]
    assert [one["label"] for one in best] == expected
    assert all(chances[one["label"]] == one["probability"] for one in best)
    as_field = api.post(
        "/predict", params={"model": COLOUR}, json={"image": text(content), "top_k": asked}
    )
    assert as_field.json()["top_k"] == best


def test_without_asking_no_best_classes_are_named(api):
    assert "top_k" not in predicted(api, picture(), DIGITS)


@pytest.mark.parametrize("value", ["0", "-1", "many", "257", "9" * 5000])
def test_a_wrong_number_of_best_classes_is_refused(api, value):
    for path in ("/predict", "/explain"):
        found = api.post(path, params={"top_k": value}, content=picture(), headers=PNG)
        assert (found.status_code, "top_k" in found.json()["detail"]) == (422, True)
    found = api.post("/predict/batch", params={"top_k": value}, json={"images": [text(picture())]})
    assert found.status_code == 422
    if value.lstrip("-").isdecimal() and len(value) < 9:
        found = api.post("/predict", json={"image": text(picture()), "top_k": int(value)})
        assert found.status_code == 422


def test_a_batch_has_best_classes_and_errors_in_their_places(api):
    images = [text(colour_picture(COLOURS["red"])), text(b"none"), text(picture(28))]
    found = api.post("/predict/batch?model=colours&top_k=1", json={"images": images}).json()
    one, wrong, other = found["predictions"]
    assert one["top_k"] == [{"label": "red", "probability": one["confidence"]}]
    assert wrong["status"] == 400
    assert other["prediction"] in COLOURS


def test_an_explanation_is_of_the_pictures_size_and_colours(api):
    found = api.post("/explain?model=colours", content=colour_picture((180, 60, 40)), headers=PNG)
    answer = found.json()
    assert (answer["prediction"], answer["occlusion"]["size"]) == ("red", 7)
    assert np.shape(answer["occlusion"]["falls"]) == (13, 13)
    for uri, mode in ((answer["steps"]["picture"], "RGB"), (answer["steps"]["image"], "RGB")):
        assert Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).mode == mode


def test_feedback_names_a_class_of_the_model(api, tmp_path):
    answer = predicted(api, colour_picture(COLOURS["red"]), COLOUR)
    body = {"request_id": answer["request_id"], "label": "blue"}
    assert api.post("/feedback", json=body).status_code == 422  # the digits have no such label
    assert api.post("/feedback", json=body | {"label": 3}).status_code == 404  # nor the request
    found = api.post("/feedback?model=colours", json=body)
    assert found.json() == body | {
        "prediction": "red",
        "correct": False,
        "model_version": answer["model_version"],
    }
    for label in ("purple", 3, "3"):
        wrong = api.post("/feedback?model=colours", json=body | {"label": label})
        assert wrong.status_code == 422
        assert wrong.json()["detail"] == (
            "label: must be one of red, green, blue, black, white, or null"
        )
    path = tmp_path / "state" / "served" / "colours" / "feedback.db"
    images = ImageFormat((32, 32, 3), tuple(COLOURS))
    (kept,) = FeedbackStore(path, images=images).entries()
    assert (kept.label, kept.prediction, kept.image.shape) == ("blue", "red", (32, 32, 3))
    assert kept.image[16, 16].tolist() == list(COLOURS["red"])
    api.post("/feedback?model=colours", json=body | {"label": None})
    assert FeedbackStore(path, images=images).entries()[0].label == NO_DIGIT


def test_feedback_with_a_picture_needs_no_earlier_request(api):
    body = {"request_id": "own", "label": "green", "image": text(colour_picture((30, 160, 40)))}
    assert api.post("/feedback?model=colours", json=body).json()["correct"]


def test_the_window_and_the_reference_are_of_the_model(api):
    predicted(api, colour_picture(COLOURS["green"]), COLOUR)
    with np.load(io.BytesIO(api.get("/api/window?model=colours").content)) as window:
        assert window["images"].shape == (1, 32, 32, 3)
        assert window["labels"].tolist() == list(COLOURS)
        assert window["labels"][window["predictions"]].tolist() == ["green"]
    with np.load(io.BytesIO(api.get("/api/window").content)) as window:
        assert "labels" not in window
        assert window["images"].shape == (0, 28, 28)
    assert api.get("/api/reference?model=colours").status_code == 404  # its bundle has none


def test_the_service_says_what_its_models_are(api):
    info = api.get("/api/info").json()
    assert info["model_names"] == [DIGITS, COLOUR, LETTER]
    digits, colour, letter = info["models"]
    assert (digits["model"], digits["labels"]) == (DIGITS, list(range(10)))
    assert digits["input"] == {"shape": [28, 28, 1], "preparation": "digit"}
    assert (colour["labels"], colour["input"]["shape"]) == (list(COLOURS), [32, 32, 3])
    assert (letter["labels"], letter["input"]["preparation"]) == ([*string.ascii_uppercase], "fit")


def test_open_inference_metadata_has_the_true_shape(api):
    about = api.get("/v2/models/colours").json()
    assert about["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 32, 32, 3]}]
    assert about["outputs"] == [
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 5]},
        {"name": "prediction", "datatype": "BYTES", "shape": [-1]},
    ]
    assert api.get("/v2/models/letters").json()["inputs"][0]["shape"] == [-1, 28, 28, 1]
    assert api.get("/v2/models/letters/ready").json() == {"name": "letters", "ready": True}
    version = about["versions"][0]
    assert api.get(f"/v2/models/colours/versions/{version}/ready").status_code == 200


def tensor(images, shape, **options):
    return {"name": "image", "shape": shape, "datatype": "UINT8", "data": images.tolist()} | options


@pytest.mark.parametrize("shape", [[2, 32, 32, 3], [2, 3072]])
def test_open_inference_takes_colours_as_they_are(api, shape):
    images = np.zeros((2, 32, 32, 3), np.uint8)
    images[0] = COLOURS["blue"]
    body = {"inputs": [tensor(images.reshape(-1), shape)]}
    answer = api.post("/v2/models/colours/infer", json=body).json()
    chances, labels = answer["outputs"]
    assert (labels["datatype"], labels["data"]) == ("BYTES", ["blue", "black"])
    assert chances["shape"] == [2, 5]
    wrong = {"inputs": [tensor(images.reshape(-1), [2, 96, 32])]}
    refused = api.post("/v2/models/colours/infer", json=wrong)
    assert refused.status_code == 422
    assert refused.json()["detail"].endswith("must be [n, 32, 32, 3] or [n, 3072]")


@pytest.mark.parametrize("shape", [[1, 28, 28, 1], [1, 28, 28], [1, 784]])
def test_open_inference_takes_grey_with_or_without_its_channel(api, shape):
    body = {"inputs": [tensor(np.full(784, 255, np.uint8), shape)]}
    answer = api.post("/v2/models/letters/infer", json=body).json()
    assert answer["outputs"][1]["data"] == ["Z"]


def test_labels_as_binary_tensors_have_their_length_before_them(api):
    body = {
        "inputs": [tensor(np.zeros(3072, np.uint8), [1, 3072])],
        "outputs": [{"name": "prediction", "parameters": {"binary_data": True}}],
    }
    answer = api.post("/v2/models/colours/infer", json=body)
    length = int(answer.headers["inference-header-content-length"])
    assert answer.content[length:] == b"\5\0\0\0black"
    (output,) = json.loads(answer.content[:length])["outputs"]
    assert output["parameters"] == {"binary_data_size": 9}


def test_large_tensors_of_a_model_of_large_images_are_taken(api):
    images = np.full(3072 * 30, 200, np.uint8)
    body = {"inputs": [tensor(images, [30, 3072])]}
    assert api.post("/v2/models/colours/infer", json=body).status_code == 200


def test_the_stream_is_of_the_model_that_it_names(api):
    with api.websocket_connect("/predict/stream?model=colours&top_k=1") as socket:
        socket.send_bytes(colour_picture(COLOURS["white"]))
        answer = socket.receive_json()
        assert (answer["prediction"], answer["top_k"][0]["label"]) == ("white", "white")
    with api.websocket_connect("/predict/stream?model=birds") as socket:
        socket.send_bytes(picture())
        assert socket.receive_json()["status"] == 404


def test_metrics_tell_the_models_apart(api):
    predicted(api, picture(), DIGITS)
    answer = predicted(api, colour_picture(COLOURS["red"]), COLOUR)
    found = {
        (sample.labels.get("model_version"), sample.labels.get("predicted_class"))
        for family in text_string_to_metric_families(api.get("/metrics").text)
        for sample in family.samples
        if sample.name == "predictions_total"
    }
    digits = api.get("/health").json()["model_version"]
    assert found == {(digits, "3"), (f"colours/{answer['model_version']}", "red")}
    info = [line for line in api.get("/metrics").text.splitlines() if line[:11] == "model_info{"]
    assert len(info) == 3


def test_a_model_that_is_not_there_degrades_but_the_default_answers(client, made, tmp_path):
    (tmp_path / "empty").mkdir()
    api = client(models=f"{DIGITS}={made[3]},birds={tmp_path / 'empty'}")
    found = api.get("/health")
    assert (found.status_code, found.json()["status"]) == (200, "degraded")
    assert found.json()["reason"] == "birds: the bundle in MODELS cannot be served"
    assert api.get("/health/ready").status_code == 200
    assert api.post("/predict", content=picture(), headers=PNG).status_code == 200
    refused = api.post("/predict?model=birds", content=picture(), headers=PNG)
    assert refused.status_code == 503
    assert api.get("/v2/models/birds/ready").status_code == 503
    assert "\nmodel_degraded 1.0\n" in api.get("/metrics").text


def test_another_model_that_cannot_keep_answers_stops_no_default(client, models, tmp_path):
    blocked = tmp_path / "state/served" / COLOUR
    blocked.mkdir(parents=True)
    (blocked / "recent").touch()  # a file, where a folder must be
    api = client(**models, state_dir=tmp_path / "state")
    assert api.post("/predict", content=picture(), headers=PNG).status_code == 200
    assert api.post(f"/predict?model={COLOUR}", content=picture(), headers=PNG).status_code == 503
    assert predicted(api, grey(255), LETTER)["prediction"] == "Z"


def test_without_the_default_it_is_not_ready(client, made, tmp_path):
    (tmp_path / "empty").mkdir()
    api = client(models=f"birds={tmp_path / 'empty'},{DIGITS}={made[3]}")
    assert api.get("/health/ready").status_code == 503
    assert api.post(f"/predict?model={DIGITS}", content=picture(), headers=PNG).status_code == 200


def test_a_new_version_with_more_classes_keeps_its_own_answers(client, colours, tmp_path):
    """What is kept of a model depends on its labels; feedback finds what any version answered."""
    api = client(models=f"colours={colours}")
    before = predicted(api, colour_picture(COLOURS["red"]), "")
    more = write_labelled(
        tmp_path / "more",
        (colours / "model.tflite").read_bytes(),
        [name.upper() for name in COLOURS],
        (32, 32, 3),
    )
    served = api.app.service.default
    assert isinstance(served.models._bundles, BundleCache)
    bring(served.models._bundles, more, "2")
    served.models.refresh()
    assert predicted(api, colour_picture(COLOURS["red"]), "")["prediction"] == "RED"
    told = {"request_id": before["request_id"], "label": "RED"}
    assert api.post("/feedback", json=told).json()["prediction"] == "red"
