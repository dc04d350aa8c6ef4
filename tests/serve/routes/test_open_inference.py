import json
import time
import tracemalloc
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from support.bundles import text

from serve.http.request_body import InvalidError
from serve.routes import open_inference

PATH = "/v2/models/mnist-classifier"


@pytest.fixture
def api(client):
    return client()


def image():
    pixels = np.zeros((28, 28), np.uint8)
    pixels[4:24, 13:16] = 255
    return pixels


def infer(api, data, shape, datatype="UINT8", **more):
    tensor = {"name": "image", "shape": shape, "datatype": datatype, "data": data}
    return api.post(f"{PATH}/infer", json={"inputs": [tensor], **more})


def test_server_and_model_describe_themselves(api):
    assert api.get("/v2").json()["name"] == "digit-platform"
    assert api.get("/v2/health/live").json() == {"live": True}
    assert api.get("/v2/health/ready").json() == {"ready": True}
    assert api.get(f"{PATH}/ready").json()["ready"] is True
    described = api.get(PATH).json()
    assert described["versions"] == [api.get("/health").json()["model_version"]]
    assert described["inputs"][0]["shape"] == [-1, 28, 28, 1]


@pytest.mark.parametrize("datatype", ["UINT8", "FP32"])
@pytest.mark.parametrize("shape", [[2, 28, 28, 1], [2, 28, 28], [2, 784]])
@pytest.mark.parametrize("nested", [True, False])
def test_each_form_of_a_tensor_is_read(api, datatype, shape, nested):
    pixels = np.stack([image(), image() // 2]).astype("u1" if datatype == "UINT8" else "f4")
    data = (pixels.reshape(shape) if nested else pixels.reshape(-1)).tolist()
    response = infer(api, data, shape, datatype, id="mine")
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["id"] == "mine"
    assert answer["model_name"] == "mnist-classifier"
    assert answer["model_version"] == response.headers["x-model-version"]
    probabilities, prediction = answer["outputs"]
    assert (probabilities["name"], probabilities["shape"]) == ("probabilities", [2, 10])
    assert sum(probabilities["data"][:10]) == pytest.approx(1, abs=1e-5)
    assert (prediction["name"], prediction["data"]) == ("prediction", [3, 3])


def test_the_answer_is_that_of_predict(api):
    file = BytesIO()
    Image.fromarray(image()).save(file, "PNG")
    alone = api.post("/predict", json={"image": text(file.getvalue())}).json()
    tensor = infer(api, image().reshape(-1).tolist(), [1, 784]).json()
    assert tensor["outputs"][0]["data"] == alone["probabilities"]


def test_outputs_may_be_chosen(api):
    answer = infer(api, image().reshape(-1).tolist(), [1, 784], outputs=[{"name": "prediction"}])
    assert [output["name"] for output in answer.json()["outputs"]] == ["prediction"]


@pytest.mark.parametrize(
    ("data", "shape", "datatype"),
    [
        ([0] * 784, [1, 784], "INT64"),
        ([0] * 783, [1, 784], "UINT8"),
        ([0] * 784, [2, 784], "UINT8"),
        ([0] * 784, [1, 783], "UINT8"),
        ([0] * 784, [0, 784], "UINT8"),
        ([-1] * 784, [1, 784], "FP32"),
        ([256] * 784, [1, 784], "FP32"),
        ([1e400] * 784, [1, 784], "FP32"),
        ([10**30] * 784, [1, 784], "FP32"),
        (["1"] * 784, [1, 784], "FP32"),
        ([None] * 784, [1, 784], "FP32"),
        ([True] * 784, [1, 784], "UINT8"),
        ([[0] * 784, [0]], [1, 784], "UINT8"),
        ([{}] * 784, [1, 784], "UINT8"),
        ([0] * 784, [1, 784], "UINT8"),  # empty
        ([0] * 784, [257, 784], "UINT8"),
        ([], [1, 784], "UINT8"),
        ("x", [1, 784], "UINT8"),
    ],
)
def test_other_tensors_are_refused(api, data, shape, datatype):
    body = json.dumps(
        {"inputs": [{"name": "i", "shape": shape, "datatype": datatype, "data": data}]}
    )
    refused = api.post(f"{PATH}/infer", content=body, headers={"content-type": "application/json"})
    assert refused.status_code == 422, refused.text
    assert refused.json()["detail"] == refused.json()["error"]


def test_words_cost_no_more_than_their_bytes():
    data = ["x" * 150_000] + ["a"] * 783
    tracemalloc.start()
    with pytest.raises(InvalidError, match=r"inputs\.0\.data"):
        open_inference._numbers(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10**6


def test_many_numbers_are_read_at_once():
    flat = list(range(256)) * 784
    nested = np.array(flat).reshape(256, 28, 28, 1).tolist()
    for data in (flat, nested):
        started = time.thread_time()
        np.testing.assert_array_equal(open_inference._numbers(data).reshape(-1), flat)
        assert time.thread_time() - started < 0.2


def test_another_model_is_not_found(api):
    assert api.get("/v2/models/other").status_code == 404
