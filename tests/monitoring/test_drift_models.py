"""The drift job on a model of five colours, beside the digits."""

import json
import shutil

import numpy as np
import pytest
from support.bundles import COLOURS
from support.service_process import Process

from monitoring.drift.__main__ import DRIFT, FAILED, NO_DRIFT, main
from serve.models import drift_reference
from serve.models.predictor import Predictor


def images(seed, n, most=40):
    """Pictures of one colour each, near to those that the model knows."""
    generator = np.random.default_rng(seed)
    chosen = np.array(list(COLOURS.values()))[generator.integers(0, 5, n)]
    near = np.clip(chosen + generator.integers(-most, most + 1, (n, 3)), 0, 255)
    return np.broadcast_to(near[:, None, None].astype(np.uint8), (n, 32, 32, 3))


@pytest.fixture
def service(made, colours, tmp_path):
    folder = shutil.copytree(colours, tmp_path / "colours")
    some = images(0, 400)
    taken = drift_reference.build(some, Predictor(folder).probabilities(some))
    np.savez(folder / drift_reference.FILE, **taken._asdict())
    models = f"mnist-classifier={made[3]},colours={folder}"
    running = Process(tmp_path, MODELS=models, API_WORKERS=1)
    running.ready()
    yield running
    running.stop()


def send(service, pixels):
    with service.client() as api:
        for part in np.array_split(pixels, 8):
            tensor = {"name": "image", "datatype": "UINT8", "shape": [len(part), 3072]}
            body = {"inputs": [tensor | {"data": part.reshape(-1).tolist()}]}
            assert api.post("/v2/models/colours/infer", json=body).status_code == 200


def test_it_compares_a_model_of_other_pictures_with_its_own_reference(service, tmp_path):
    def check():
        out = tmp_path / "drift"
        status = main(["--url", service.url, "--model", "colours", "--out", str(out)])
        return (
            status,
            json.loads((out / "drift.json").read_text()),
            (out / "index.html").read_text(),
        )

    send(service, images(1, 200))
    status, found, page = check()
    assert (status, found["images"]) == (NO_DRIFT, 200)
    assert list(found["p_values"]) == [f"softmax_{name}" for name in COLOURS]
    assert list(found["psi"]) == ["ink", "row", "column", "confidence", "digit"]
    assert "Image classified as red" in page
    send(service, np.full((200, 32, 32, 3), (30, 160, 40), np.uint8))
    assert check()[0] == DRIFT
    assert main(["--url", service.url, "--out", str(tmp_path)]) == FAILED  # digits: no reference
