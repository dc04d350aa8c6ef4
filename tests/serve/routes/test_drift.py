"""What a look for drift asks of the service."""

import asyncio
import hashlib
import io
import json
import threading

import numpy as np
import pytest
from support.bundles import PNG, picture, write_bundle

from serve.models import drift_reference
from serve.models.predictor import Predictor
from serve.routes import drift

DTYPES = {
    "images": "|u1",
    "probabilities": "<f4",
    "predictions": "|u1",
    "versions": "<U12",
    "times": "<i8",
    "likelihoods": "<f4",
}


def arrays(response):
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-npz"
    assert response.headers["cache-control"] == "no-store"
    with np.load(io.BytesIO(response.content), allow_pickle=False) as found:
        return dict(found)


@pytest.fixture
def described(digit_file, tmp_path):
    """A bundle with a reference, and that."""
    bundle = write_bundle(tmp_path / "bundle", digit_file(3))
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    taken = drift_reference.build(images, Predictor(bundle).probabilities(images))
    np.savez(bundle / drift_reference.FILE, **taken._asdict())
    return bundle, taken


def test_the_window_has_what_was_answered(client):
    api = client()
    answers = [
        api.post("/predict?image=true", content=picture(side), headers=PNG).json()
        for side in (28, 60, 100)
    ]
    found = arrays(api.get("/api/window"))
    assert {name: part.dtype.str for name, part in found.items()} == DTYPES
    assert found["images"].shape == (3, 28, 28)
    np.testing.assert_allclose(
        found["probabilities"], [answer["probabilities"] for answer in answers], rtol=1e-5
    )
    assert found["predictions"].tolist() == [3, 3, 3]
    assert found["versions"].tolist() == [answer["model_version"] for answer in answers]
    assert (np.diff(found["times"]) > 0).all()
    latest = arrays(api.get("/api/window?images=2"))
    np.testing.assert_array_equal(latest["times"], found["times"][1:])


@pytest.mark.parametrize("images", ["0", "-1", "many", "2001"])
def test_so_many_must_be_a_number(client, images):
    response = client().get(f"/api/window?images={images}")
    assert response.status_code == 422
    assert "images" in response.json()["detail"]


def test_two_windows_may_be_on_their_way_until_their_callers_have_taken_them(client, monkeypatch):
    """A caller may be slow, and each window is held in memory."""
    api = client()
    app, held = api.app, []

    async def ask(taken):
        scope = {"type": "http", "method": "GET", "path": "/api/window", "query_string": b""}
        scope |= {"headers": [], "scheme": "http", "http_version": "1.1", "root_path": ""}

        async def receive():
            await asyncio.sleep(60)

        async def send(message):
            held.append(message)
            if message["type"] == "http.response.body":
                await taken.wait()

        await app(scope, receive, send)

    async def run():
        taken = asyncio.Event()
        slow = [asyncio.create_task(ask(taken)) for _ in range(2)]
        while len(held) < 4:
            await asyncio.sleep(0.01)
        held.clear()
        now = asyncio.Event()
        now.set()
        await ask(now)
        statuses = [message.get("status") for message in held]
        taken.set()
        await asyncio.gather(*slow)
        return statuses

    assert api.portal.call(run)[0] == 503
    assert api.get("/api/window").status_code == 200
    monkeypatch.setattr(drift, "_TIMEOUT_SECONDS", 0.1)

    async def forgotten():
        await ask(asyncio.Event())

    api.portal.call(forgotten)  # ends, though nothing is taken
    assert api.get("/api/window").status_code == 200


def test_the_window_is_of_all_workers(ready):
    service = ready(API_WORKERS=2)
    with service.client() as api:
        answering = [
            threading.Thread(target=lambda: api.post("/predict", content=picture(), headers=PNG))
            for _ in range(40)
        ]
        for each in answering:
            each.start()
        for each in answering:
            each.join()
        for _ in range(5):  # whichever worker is asked
            assert len(arrays(api.get("/api/window"))["times"]) == 40
    assert len(list((service.folder / "state" / "recent").glob("*.ring"))) == 2


def test_the_reference_is_that_of_the_bundle_in_service(client, described):
    bundle, taken = described
    response = client(model_uri=str(bundle)).get("/api/reference")
    assert arrays(response).keys() == {"probabilities", "features"}
    found = drift_reference.read(response.content)
    np.testing.assert_array_equal(found.probabilities, taken.probabilities)
    np.testing.assert_array_equal(found.features, taken.features)
    version = response.headers["x-model-version"]
    shares = client(model_uri=str(bundle)).get("/metrics").text
    mix = np.bincount(taken.probabilities.argmax(1), minlength=10) / len(taken.probabilities)
    series = (
        f'model_reference_class_ratio{{model_version="{version}",predicted_class="3"}} {mix[3]}'
    )
    assert series in shares.splitlines()
    answer = client(model_uri=str(bundle)).post("/predict", content=picture(), headers=PNG).json()
    assert version == answer["model_version"]


def test_a_reference_that_is_not_the_one_described_is_not_given_away(client, described):
    bundle, _ = described
    path = bundle / "model.json"
    digest = hashlib.sha256((bundle / drift_reference.FILE).read_bytes()).hexdigest()
    about = json.loads(path.read_text()) | {"reference": {"sha256": digest}}
    path.write_text(json.dumps(about))
    api = client(model_uri=str(bundle))
    assert api.get("/api/reference").status_code == 200
    folder = api.app.service.default.models.current.folder
    (folder / drift_reference.FILE).write_bytes(b"another")
    response = api.get("/api/reference")
    assert response.status_code == 404
    assert "not what model.json describes" in response.json()["detail"]


def test_a_bundle_without_a_reference_says_so(client):
    response = client().get("/api/reference")
    assert response.status_code == 404
    assert "reference.npz" in response.json()["detail"]


def test_without_a_model_there_is_no_reference(client, tmp_path):
    assert client(model_uri=str(tmp_path)).get("/api/reference").status_code == 503
