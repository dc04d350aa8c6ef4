"""A real MLflow server, and everything that may happen to the registry while requests run."""

import os
import shutil
import signal
import socket
import threading
import time
from collections import Counter

import httpx2
import pytest
from support.bundles import PNG, picture
from support.mlflow_registry import Registry, await_server, server
from support.service_process import until


@pytest.fixture
def mlflow_server(tmp_path, monkeypatch):
    """Its address, and how to stop and start it."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"

    class Running:
        process = None

        def start(self):
            self.process = server(tmp_path, port)
            await_server(uri)

        def stop(self):
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    running = Running()
    running.uri = uri
    running.start()
    yield running
    running.stop()


class Load:
    """Clients that ask all the time, and what they were told."""

    def __init__(self, service, connections):
        self.answers = Counter()
        self.wrong = []
        self.broken = []  # what broke, after how many requests of its connection and seconds
        self._service, self._done = service, threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(connections)]

    def _ask(self):
        content = picture()
        while not self._done.is_set():
            with self._service.client() as api:
                try:
                    for number in range(50):  # noqa: B007 - told below
                        began = time.monotonic()
                        self._take(api.post("/predict", content=content, headers=PNG))
                        self._done.wait(0.02)  # leaves the registry some of the processor
                except httpx2.TransportError as error:
                    after = round(time.monotonic() - began, 3)
                    self.broken.append((type(error).__name__, str(error), number, after))

    def _take(self, answer):
        if answer.status_code != 200:
            self.wrong.append(answer.text)
            return
        found = answer.json()
        self.answers[found["model_version"], found["prediction"]] += 1

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error):
        self._done.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.slow
@pytest.mark.alone
def test_no_request_fails_whatever_happens_to_the_registry(mlflow_server, start, made, tmp_path):
    registry = Registry(mlflow_server.uri)
    corrupt = tmp_path / "corrupt"
    shutil.copytree(made[8], corrupt)
    content = bytearray((corrupt / "model.tflite").read_bytes())
    content[len(content) // 2] ^= 1
    (corrupt / "model.tflite").write_bytes(content)
    three, eight, bad = (registry.register(bundle) for bundle in (made[3], made[8], corrupt))
    registry.promote(three)
    service = start(
        MODEL_URI="models:/mnist-classifier@champion",
        MLFLOW_TRACKING_URI=mlflow_server.uri,
        MODEL_POLL_SECONDS="0.2",
        API_WORKERS="2",
    )
    service.ready()
    connections = 32

    def health():
        with service.client() as api:
            return api.get("/health").json()

    def serves(version):
        return all(health()["model_version"] == version for _ in range(4))

    with Load(service, connections) as load:
        for move in range(20):
            version = (eight, three)[move % 2]
            registry.promote(version)
            until(lambda wanted=version: serves(wanted), service)
        mlflow_server.stop()
        until(lambda: health()["status"] == "degraded", service)
        assert serves(three)
        mlflow_server.start()
        until(lambda: health()["status"] == "healthy", service)
        registry.promote(bad)
        until(lambda: "no valid bundle" in str(health()["reason"]), service)
        assert serves(three)
        registry.promote(eight)
        until(lambda: serves(eight), service)
        assert not load.broken, load.broken
        victim = service.children()[0]
        os.kill(victim, signal.SIGKILL)
        until(lambda: victim not in service.children(), service)
        until(lambda: len(service.children()) == 3, service)
        until(lambda: serves(eight), service)

    assert not load.wrong
    assert len(load.broken) <= connections, load.broken  # what was in flight in the killed worker
    assert set(load.answers) == {(three, 3), (eight, 8)}  # never a wrong one, never the corrupt one
    assert sum(load.answers.values()) > 1000
    with service.client() as api:
        metrics = api.get("/metrics").text
    for outcome in ("bundle_invalid", "success"):
        assert f'model_reloads_total{{outcome="{outcome}"}} 0.0' not in metrics
    # The puller is replaced, too.
    puller = service.children()[-1]
    registry.promote(three)
    os.kill(puller, signal.SIGKILL)
    until(lambda: serves(three), service)
    assert service.stop() == 0
