"""A small real model, applications on it, and the service as a process."""

import numpy as np
import pytest
from making import picture, write_bundle
from serving import Process
from starlette.testclient import TestClient

from serve.app import create_app
from serve.settings import Settings

SIDE = 28


@pytest.fixture(scope="session")
def litert(tensorflow):
    """Makes a real LiteRT file that always answers `digit`, the surer the brighter the image."""
    tf = tensorflow

    def make(digit):
        weights = np.zeros((SIDE * SIDE, 10), np.float32)
        weights[:, digit] = 1 / 5000

        class Network(tf.Module):
            @tf.function(input_signature=[tf.TensorSpec((None, SIDE, SIDE, 1), tf.uint8)])
            def __call__(self, images):
                pixels = tf.reshape(tf.cast(images, tf.float32), (-1, SIDE * SIDE))
                return pixels @ tf.constant(weights)

        network = Network()
        converter = tf.lite.TFLiteConverter.from_concrete_functions(
            [network.__call__.get_concrete_function()], network
        )
        return converter.convert()

    return make


@pytest.fixture(scope="session")
def made(litert, tmp_path_factory):
    """Two bundles: `made[3]` always answers 3, `made[8]` always 8."""
    folder = tmp_path_factory.mktemp("bundles")
    return {digit: write_bundle(folder / str(digit), litert(digit)) for digit in (3, 8)}


@pytest.fixture(scope="session")
def png():
    return picture()


@pytest.fixture
def settings(made, tmp_path, monkeypatch):
    """Makes settings for `made[3]`, whatever the environment says."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)

    def make(**changed):
        return Settings(**{"model_uri": str(made[3]), "state_dir": tmp_path / "state", **changed})

    return make


@pytest.fixture
def client(settings):
    """Starts an application in this process; its client."""
    running = []

    def start(**changed):
        client = TestClient(create_app(settings(**changed)), raise_server_exceptions=False)
        running.append(client)
        return client.__enter__()

    yield start
    for client in running:
        client.__exit__(None, None, None)


@pytest.fixture
def start(tmp_path, made):
    """Starts the service as a process, by default on `made[3]`."""
    running = []

    def begin(folder=None, **environment):
        folder = folder or tmp_path
        process = Process(folder, **{"MODEL_URI": made[3], **environment})
        running.append(process)
        return process

    yield begin
    for process in running:
        if process.process.poll() is None:
            process.process.kill()
            process.process.wait()
