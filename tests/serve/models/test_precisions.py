"""Bundles with an int8 file. To tell them apart, the float32 file answers 3, the int8 file 8."""

import hashlib
import json
import logging

import numpy as np
import pytest
from support.bundles import PNG, SOURCE, bring, picture, write_bundle

from serve.models import bundle_cache, bundle_digest
from serve.models.loaded import LoadedModels
from serve.models.predictor import BundleError, Predictor, each_precision

BLANK = np.full((1, 28, 28), 200, np.uint8)


@pytest.fixture
def bundle(digit_file, tmp_path):
    """Makes such a bundle, or one without the int8 file."""

    def make(int8=True, holds=True):
        folder = write_bundle(tmp_path / "both", digit_file(3))
        if int8:
            content = digit_file(8)
            (folder / "model.int8.tflite").write_bytes(content)
            description = json.loads((folder / "model.json").read_text())
            description["precisions"] = {
                "float32": {"sha256": description["sha256"], "temperature": 1.0},
                "int8": {
                    "sha256": hashlib.sha256(content).hexdigest(),
                    "temperature": 2.0,
                    "metrics": {"test_accuracy": 0.25},
                    "holds": holds,
                },
            }
            (folder / "model.json").write_text(json.dumps(description))
        return folder

    return make


@pytest.mark.parametrize(
    ("precision", "int8", "holds", "digit"),
    [
        ("float32", True, True, 3),
        ("int8", True, True, 8),
        ("int8", True, False, 8),
        ("int8", False, True, 3),
        ("auto", True, True, 8),
        ("auto", True, False, 3),
        ("auto", False, True, 3),
    ],
)
def test_the_file_that_answers(bundle, precision, int8, holds, digit):
    predictor = Predictor(bundle(int8, holds), precision)
    assert predictor.probabilities(BLANK).argmax() == digit
    assert predictor.precision == {3: "float32", 8: "int8"}[digit]
    temperature, accuracy = {3: (1.0, 0.5), 8: (2.0, 0.25)}[digit]
    assert predictor.description["temperature"] == temperature
    assert predictor.description["metrics"] == {"test_accuracy": accuracy}


def test_each_file_of_a_bundle(bundle):
    assert [each.precision for each in each_precision(bundle())] == ["float32", "int8"]


@pytest.mark.parametrize("content", [b"corrupt", None])
def test_a_bundle_is_verified_whole_but_float32_answers_without_the_other(bundle, content):
    folder = bundle()
    bundle_cache.verify_bundle(folder)
    path = folder / "model.int8.tflite"
    path.write_bytes(content) if content else path.unlink()
    with pytest.raises(BundleError):
        bundle_cache.verify_bundle(folder)
    with pytest.raises(BundleError):
        Predictor(folder, "auto")
    assert Predictor(folder).probabilities(BLANK).argmax() == 3


@pytest.mark.parametrize("precisions", [[], {"int8": 1}, {"int8": {"temperature": 1}}])
def test_a_bundle_with_a_malformed_description_is_refused(bundle, precisions):
    folder = bundle()
    description = json.loads((folder / "model.json").read_text()) | {"precisions": precisions}
    (folder / "model.json").write_text(json.dumps(description))
    with pytest.raises(BundleError):
        Predictor(folder, "int8")


def test_its_digest_is_of_both_files(bundle):
    plain = bundle(int8=False)
    digests = bundle_digest.model_digest(plain), bundle_digest.identity(plain)
    assert bundle_digest.int8_digest(plain) == ""
    both = bundle()
    assert bundle_digest.model_digest(both) == digests[0]
    assert bundle_digest.identity(both) != digests[1]
    assert bundle_digest.int8_digest(both)


def test_a_version_without_int8_answers_in_float32_and_says_so_once(cache, bundle, caplog):
    models = LoadedModels(cache, SOURCE, precision="int8")
    bring(cache, bundle(int8=False), "1")
    with caplog.at_level(logging.WARNING):
        models.refresh()
        models.refresh()
    assert models.choose(None).predictor.precision == "float32"
    assert caplog.messages == ["version 1 has no int8 model: float32 answers"]


@pytest.mark.parametrize(("precision", "digit"), [("float32", 3), ("int8", 8)])
def test_the_service_says_which_file_answers(client, bundle, precision, digit):
    api = client(model_uri=str(bundle()), model_precision=precision)
    assert api.post("/predict", content=picture(), headers=PNG).json()["prediction"] == digit
    (model,) = api.get("/api/info").json()["models"]
    assert model["precision"] == precision
    for path in ("", f"/versions/{model['version']}"):
        found = api.get(f"/v2/models/mnist-classifier{path}").json()
        assert found["properties"] == {"precision": precision}
    info = next(x for x in api.get("/metrics").text.splitlines() if x.startswith("model_info{"))
    assert f'precision="{precision}"' in info
    assert f'sha256="{model["sha256"]}"' in info
