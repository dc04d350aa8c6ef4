import json
import time
import tracemalloc
from io import BytesIO

import numpy as np
import pytest
import tritonclient.http as triton
from PIL import Image
from support.bundles import text
from tritonclient.utils import InferenceServerException

from serve.http.request_body import InvalidError
from serve.http.tensors import _numbers

NAME = "mnist-classifier"
PATH = f"/v2/models/{NAME}"


@pytest.fixture
def api(client):
    return client()


def image():
    pixels = np.zeros((28, 28), np.uint8)
    pixels[4:24, 13:16] = 255
    return pixels


INK = image().ravel().tolist()


def infer(api, data, shape, datatype="UINT8", **more):
    tensor = {"name": "image", "shape": shape, "datatype": datatype, "data": data}
    return api.post(f"{PATH}/infer", json={"inputs": [tensor], **more})


def test_server_and_model_describe_themselves(api):
    assert api.get("/v2").json()["name"] == "digit-platform"
    assert api.get("/v2").json()["extensions"] == ["binary_tensor_data"]
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
        (INK, [1, 784], "INT64"),
        (INK[:-1], [1, 784], "UINT8"),
        (INK, [2, 784], "UINT8"),
        (INK, [1, 783], "UINT8"),
        (INK, [0, 784], "UINT8"),
        ([-1] * 784, [1, 784], "FP32"),
        ([256] * 784, [1, 784], "FP32"),
        ([1e400] * 784, [1, 784], "FP32"),
        ([10**30] * 784, [1, 784], "FP32"),
        (["1"] * 784, [1, 784], "FP32"),
        ([None] * 784, [1, 784], "FP32"),
        ([True] * 784, [1, 784], "UINT8"),
        ([255.0] * 784, [1, 784], "UINT8"),
        ([INK, [0]], [1, 784], "UINT8"),
        (INK, ["1", "784"], "UINT8"),
        (INK, [1.0, 784.0], "UINT8"),
        (INK, [True, 784], "UINT8"),
        (INK, [-1, -784], "UINT8"),
        (INK, 784, "UINT8"),
        ([{}] * 784, [1, 784], "UINT8"),
        ([0] * 784, [1, 784], "UINT8"),  # empty
        (INK, [257, 784], "UINT8"),
        ([], [1, 784], "UINT8"),
        ("x", [1, 784], "UINT8"),
        (None, [1, 784], "UINT8"),
    ],
)
def test_other_tensors_are_refused(api, data, shape, datatype):
    body = json.dumps(
        {"inputs": [{"name": "image", "shape": shape, "datatype": datatype, "data": data}]}
    )
    refused = api.post(f"{PATH}/infer", content=body, headers={"content-type": "application/json"})
    assert refused.status_code == 422, refused.text
    assert refused.json()["detail"] == refused.json()["error"]


@pytest.mark.parametrize("shape", [[1, 28, 28, 1], [1, 28, 28], [1, 784]])
@pytest.mark.parametrize("nested", [[28, 28], [28, 28, 1], [1, 1, 784], [1, 784, 1], [4, 196]])
def test_data_nested_otherwise_than_the_shape_are_refused(api, nested, shape):
    refused = infer(api, image().reshape(nested).tolist(), shape)
    assert refused.status_code == 422
    assert "nested as the shape" in refused.json()["error"]


GOOD = {"name": "image", "shape": [1, 784], "datatype": "UINT8", "data": INK}


@pytest.mark.parametrize(
    ("changed", "place"),
    [
        ({"inputs": [{**GOOD, "name": "other"}]}, "inputs.0.name"),
        ({"inputs": []}, "inputs"),
        ({"inputs": [GOOD, GOOD]}, "inputs"),
        ({"outputs": [{"name": "other"}]}, "outputs.0.name"),
        (
            {"outputs": [{"name": "prediction", "parameters": {"classification": 3}}]},
            "outputs.0.parameters.classification",
        ),
        (
            {"outputs": [{"name": "prediction", "parameters": {"shared_memory_region": "a"}}]},
            "outputs.0.parameters.shared_memory_region",
        ),
        ({"parameters": {"binary_data_output": "yes"}}, "parameters.binary_data_output"),
    ],
)
def test_a_request_for_something_else_is_refused(api, changed, place):
    refused = api.post(f"{PATH}/infer", json={"inputs": [GOOD], **changed})
    assert refused.status_code == 422
    assert refused.json()["error"].startswith(f"{place}: ")


def test_unknown_parameters_and_null_are_ignored(api):
    tensor = {**GOOD, "parameters": {"content_type": "np"}}
    for more in ({"parameters": {"priority": 1}}, {"parameters": None, "outputs": None}):
        answer = api.post(f"{PATH}/infer", json={"inputs": [tensor], **more})
        assert answer.status_code == 200, answer.text


def binary(api, pixels, length=None, path=f"{PATH}/infer", more=b"", **changed):
    tensor = {"name": "image", "shape": [1, 784], "datatype": "UINT8"}
    tensor["parameters"] = {"binary_data_size": pixels.nbytes}
    head = json.dumps({"inputs": [{**tensor, **changed}]}).encode()
    headers = {"content-type": "application/octet-stream"}
    headers["inference-header-content-length"] = str(len(head)) if length is None else length
    if length == "absent":
        del headers["inference-header-content-length"]
    return api.post(path, content=head + pixels.tobytes() + more, headers=headers)


@pytest.mark.parametrize(
    "length", ["", "-1", "+9", "1.5", "a", "9" * 19, "9" * 5000, "0" * 5000, "\u00b2", "100000"]
)
def test_a_wrong_length_of_the_json_is_refused(api, length):
    refused = binary(api, image(), length=length.encode("latin-1"))
    assert refused.status_code == 400
    assert "inference-header-content-length" in refused.json()["error"]


@pytest.mark.parametrize(
    "changed",
    [
        {"more": b"x"},
        {"length": "0"},
        {"length": "20"},
        {"datatype": "FP32"},
        {"shape": [2, 784]},
        {"data": [0] * 784},
        {"parameters": {}},
        {"parameters": {"binary_data_size": 0}},
        {"parameters": {"binary_data_size": 783}},
        {"parameters": {"binary_data_size": -1}},
        {"parameters": {"binary_data_size": "784"}},
    ],
)
def test_other_binary_tensors_are_refused(api, changed):
    assert binary(api, image()).status_code == 200
    refused = binary(api, image(), **changed)
    assert refused.status_code == 422, refused.text
    assert refused.json()["detail"] == refused.json()["error"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -1, 256])
def test_a_binary_tensor_has_pixels(api, value):
    pixels = image().astype("<f4")
    assert binary(api, pixels, datatype="FP32").status_code == 200
    pixels[0] = value
    refused = binary(api, pixels, datatype="FP32")
    assert (refused.status_code, "from 0 to 255" in refused.text) == (422, True)


def test_bytes_without_their_header_are_refused(api):
    pixels = image()
    assert binary(api, pixels, length="absent").status_code == 422


def test_each_output_says_whether_it_is_binary(api):
    outputs = [{"name": "prediction", "parameters": {"binary_data": True}}]
    outputs += [{"name": "probabilities", "parameters": {"binary_data": False}}]
    for default in (True, False):
        parameters = {"binary_data_output": default}
        body = {"inputs": [GOOD], "outputs": outputs, "parameters": parameters}
        response = api.post(f"{PATH}/infer", json=body)
        length = int(response.headers["inference-header-content-length"])
        prediction, probabilities = json.loads(response.content[:length])["outputs"]
        assert prediction["parameters"] == {"binary_data_size": 8}
        assert "data" not in prediction
        assert "parameters" not in probabilities
        assert np.frombuffer(response.content[length:], "<i8") == [3]
        assert response.headers["content-type"] == "application/octet-stream"
        assert response.headers["x-model-version"]


def test_a_loaded_version_has_paths_of_its_own(api):
    models = api.app.service.default.models
    models.previous = models.current._replace(version="older")
    for model in models.loaded:
        path = f"{PATH}/versions/{model.version}"
        assert api.get(path).json() == api.get(PATH).json()
        assert api.get(f"{path}/ready").json()["ready"] is True
        for answer in (
            api.post(f"{path}/infer", json={"inputs": [GOOD]}),
            api.post(f"{path}/infer?version=other", json={"inputs": [GOOD]}),
            binary(api, image(), path=f"{path}/infer"),
        ):
            assert answer.json()["model_version"] == model.version
            assert answer.headers["x-model-version"] == model.version


def test_an_unknown_version_is_not_found_and_makes_no_series(api):
    for version in ("9", "x" * 500, "%00"):
        path = f"{PATH}/versions/{version}"
        for answer in (
            api.get(path),
            api.get(f"{path}/ready"),
            api.post(f"{path}/infer", json={"inputs": [GOOD]}),
        ):
            assert answer.status_code == 404
            assert "is not loaded" in answer.json()["error"]
    metrics = api.get("/metrics").text
    labels = f'endpoint="{PATH}/versions/{{version}}/infer",method="POST",status_code="404"'
    assert f"api_requests_total{{{labels}}} 3.0" in metrics
    assert "versions/9" not in metrics
    # Whoever asks for metadata predicts nothing.
    assert 'prediction_errors_total{error_type="unknown_version"} 3.0' in metrics


def test_without_a_model_no_version_is_ready(client, tmp_path):
    (tmp_path / "empty").mkdir()
    api = client(model_uri=str(tmp_path / "empty"))
    for path in (PATH, f"{PATH}/versions/1", f"{PATH}/versions/1/ready"):
        assert api.get(path).status_code == 503


def batch():
    return np.stack([image(), image() // 2])


def tensors(binary):
    for pixels in (batch(), batch().reshape(2, 28, 28, 1), batch().reshape(2, 784)):
        for datatype, dtype in (("UINT8", np.uint8), ("FP32", np.float32)):
            tensor = triton.InferInput("image", pixels.shape, datatype)
            yield tensor.set_data_from_numpy(pixels.astype(dtype), binary_data=binary)


def wanted():
    """The outputs to ask for: the client's default, and each form by itself."""
    yield None
    for binary in (True, False):
        yield [
            triton.InferRequestedOutput(name, binary_data=binary)
            for name in ("prediction", "probabilities")
        ]


def check_answer(result):
    assert result.as_numpy("prediction").tolist() == [3, 3]
    probabilities = result.as_numpy("probabilities")
    assert (probabilities.dtype, probabilities.shape) == (np.float32, (2, 10))
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize("binary", [True, False])
def test_tritons_client_is_answered(service, binary):
    with triton.InferenceServerClient(service.url.removeprefix("http://")) as api:
        assert api.is_server_live()
        assert api.is_server_ready()
        assert "binary_tensor_data" in api.get_server_metadata()["extensions"]
        (version,) = api.get_model_metadata(NAME)["versions"]
        assert api.is_model_ready(NAME, version)
        assert not api.is_model_ready(NAME, "9")
        for tensor in tensors(binary):
            for outputs in wanted():
                result = api.infer(NAME, [tensor], version, outputs=outputs, request_id="mine")
                check_answer(result)
                assert result.get_response()["id"] == "mine"
        check_answer(api.infer(NAME, [tensor]))
        check_answer(api.infer(NAME, [tensor], request_compression_algorithm="gzip"))
        with pytest.raises(InferenceServerException, match="classification"):
            api.infer(NAME, [tensor], outputs=[triton.InferRequestedOutput("prediction", True, 3)])
        with pytest.raises(InferenceServerException, match="not loaded"):
            api.infer(NAME, [tensor], "9")


def test_words_cost_no_more_than_their_bytes():
    data = ["x" * 150_000] + ["a"] * 783
    tracemalloc.start()
    with pytest.raises(InvalidError, match=r"inputs\.0\.data"):
        _numbers(data, [1, 784], "FP32")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10**6


def test_many_numbers_are_read_at_once():
    flat = list(range(256)) * 784
    nested = np.array(flat).reshape(256, 28, 28, 1).tolist()
    for data in (flat, nested):
        started = time.thread_time()
        found = _numbers(data, [256, 28, 28, 1], "UINT8")
        np.testing.assert_array_equal(found, flat)
        assert time.thread_time() - started < 0.2


def test_another_model_is_not_found(api):
    assert api.get("/v2/models/other").status_code == 404
