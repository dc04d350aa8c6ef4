"""MNIST's test digits through the service, every way that a picture may come."""

import base64
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from support.service_process import ROOT, Process
from websockets.sync.client import connect

from bench import variants
from pipeline.config import paths
from pipeline.data import dataset
from serve.decoding.decode import normalise_file
from serve.models.predictor import Predictor

pytestmark = pytest.mark.slow
SOME = 1000  # digits over a WebSocket, and of each variant but the slow ones
TOGETHER = 250  # in a batch
NAME = "mnist-classifier"


@pytest.fixture(scope="module")
def bundle(champion):
    return champion.folder / paths.CHAMPION


@pytest.fixture(scope="module")
def digits(champion):
    return dataset.load(champion.folder / paths.processed("mnist"), "test")


@pytest.fixture(scope="module")
def service(bundle, tmp_path_factory):
    running = Process(tmp_path_factory.mktemp("service"), MODEL_URI=bundle, API_WORKERS=2)
    running.ready()
    yield running
    assert running.stop() == 0


def text(content):
    return base64.b64encode(content).decode()


def by_one(post):
    """Each picture in a request of its own."""
    return lambda api, files, images: [
        post(api, file).raise_for_status().json()["prediction"] for file in files
    ]


def as_batch(api, files, images):
    answer = api.post("/predict/batch", json={"images": [text(file) for file in files]})
    return [one["prediction"] for one in answer.raise_for_status().json()["predictions"]]


def as_tensor(api, files, images):
    flat = images.reshape(len(images), -1)
    tensor = {"name": "image", "datatype": "UINT8", "shape": flat.shape, "data": flat.tolist()}
    answer = api.post(f"/v2/models/{NAME}/infer", json={"inputs": [tensor]})
    outputs = {one["name"]: one["data"] for one in answer.raise_for_status().json()["outputs"]}
    return outputs["prediction"]


WAYS = {
    "raw": by_one(
        lambda api, file: api.post("/predict", content=file, headers={"content-type": "image/png"})
    ),
    "JSON": by_one(lambda api, file: api.post("/predict", json={"image": text(file)})),
    "form": by_one(lambda api, file: api.post("/predict", files={"file": ("a.png", file)})),
    "batch": as_batch,
    "V2": as_tensor,
}


@pytest.fixture(scope="module")
def files(digits):
    return [variants.file(image) for image in digits.images]


@pytest.fixture(scope="module")
def answers(service, files, digits):
    """What each way was answered, by its name."""

    def ask(way, start):
        some = slice(start, start + TOGETHER)
        with service.client() as api:
            return way(api, files[some], digits.images[some])

    found = {}
    with ThreadPoolExecutor(4) as threads:
        for name, way in WAYS.items():
            starts = range(0, len(files), TOGETHER)
            parts = threads.map(lambda start, way=way: ask(way, start), starts)
            found[name] = np.concatenate(list(parts))
    return found


def test_the_service_is_as_good_as_evaluated(champion, answers, digits):
    comparison = json.loads(champion.read("reports/comparison.json"))
    evaluated = comparison["runs"][str(comparison["best"])]["test_accuracy"]
    assert len(digits) == 10_000
    for way, predictions in answers.items():
        accuracy = (predictions == digits.labels).mean()
        assert accuracy == pytest.approx(evaluated, abs=0.0005), way


def test_a_digit_has_one_answer_whichever_way_it_comes(answers, service, files):
    for way, predictions in answers.items():
        np.testing.assert_array_equal(predictions, answers["raw"], way)
    with connect(service.url.replace("http", "ws") + "/predict/stream") as socket:
        streamed = []
        for file in files[:SOME]:
            socket.send(file)
            streamed.append(json.loads(socket.recv())["prediction"])
    assert streamed == answers["raw"][:SOME].tolist()


@pytest.mark.parametrize(
    "variant",
    [
        "inverted",
        "colour on noisy paper",
        "in a corner of 400x300",
        "anywhere in 400x300",
        "1000x1000, smooth",
        "turned by EXIF, JPEG",
        "black ink with alpha",
        "white ink with alpha",
        "16 bits",
    ],
)
def test_digits_are_read_however_they_look(bundle, digits, variant):
    some = variants.FEW if variant in variants.SLOW else SOME
    images, labels = digits.images[:some], digits.labels[:some]
    predictor = Predictor(bundle)
    plain = (predictor.probabilities(images).argmax(1) == labels).mean()
    seen, missing = variants.read(images, (variants.QUICK | variants.SLOW)[variant])
    assert not missing.any()
    assert (predictor.probabilities(seen).argmax(1) == labels).mean() >= plain - 0.01


@pytest.mark.parametrize("side", [28, 60, 200])
@pytest.mark.parametrize(("ink", "paper"), [(0, 255), (255, 0)])
@pytest.mark.parametrize("file_format", ["PNG", "GIF"])
def test_paper_that_was_made_transparent_changes_no_digit(
    bundle, digits, side, ink, paper, file_format
):
    def drawn(image):
        cover = variants.resized(image, side) / 255
        return Image.fromarray(np.rint(paper + (ink - paper) * cover).astype(np.uint8))

    pictures = [drawn(image) for image in digits.images[:SOME]]
    opaque, keyed = (
        [
            normalise_file(variants.file(one, file_format, **options), max_pixels=side**2)
            for one in pictures
        ]
        for options in ({}, {"transparency": paper})
    )
    read = Predictor(bundle).probabilities
    same = read(np.stack(opaque)).argmax(1) == read(np.stack(keyed)).argmax(1)
    assert same.mean() >= 0.999


def test_the_examples_of_page_and_api_are_read_as_they_are_named(service):
    folder = ROOT / "serve/static/examples"
    with service.client() as api:
        found = {
            path.stem: api.post(
                "/predict",
                content=path.read_bytes(),
                headers={"content-type": "application/octet-stream"},
            ).json()
            for path in folder.iterdir()
        }
        schemas = api.get("/openapi.json").json()["components"]["schemas"]
        (image,) = schemas["PredictRequest"]["properties"]["image"]["examples"]
        found["api"] = api.post("/predict", json={"image": image}).json()
    expected = {"seven": 7, "european-one": 1, "chalk": 3, "api": 7}
    assert {name: found[name]["prediction"] for name in expected} == expected
    assert [name for name in found if found[name]["not_digit"]] == ["letter"]
    # How sure the model is of it differs by the processor that trained it.
    probabilities = found["four-or-nine"]["probabilities"]
    assert {probabilities.index(share) for share in sorted(probabilities)[-2:]} == {4, 9}
