"""A real MLflow server, and everything that may happen to the registry while requests run."""

import os
import signal

import pytest
from support.alerting import Load, corrupt_copy, free_port
from support.bundles import PNG, picture
from support.mlflow_registry import Registry, await_server, server
from support.service_process import until


@pytest.fixture
def mlflow_server(tmp_path, monkeypatch):
    """Its address, and how to stop and start it."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    port = free_port()
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


@pytest.mark.slow
@pytest.mark.alone
def test_no_request_fails_whatever_happens_to_the_registry(mlflow_server, ready, made, tmp_path):
    registry = Registry(mlflow_server.uri)
    bundles = made[3], made[8], corrupt_copy(made[8], tmp_path / "corrupt")
    three, eight, bad = map(registry.register, bundles)
    registry.promote(three)
    answers = set()
    service = ready(
        MODEL_URI="models:/mnist-classifier@champion",
        MLFLOW_TRACKING_URI=mlflow_server.uri,
        MODEL_POLL_SECONDS="0.2",
        API_WORKERS="2",
    )
    connections = 32

    def ask(api, number):
        answer = api.post("/predict", content=picture(), headers=PNG)
        found = answer.json()
        answers.add((found["model_version"], found["prediction"]))
        return [answer]

    def health():
        with service.client() as api:
            return api.get("/health").json()

    def serves(version):
        return all(health()["model_version"] == version for _ in range(4))

    with Load(service.url, ask, connections) as load:
        for move in range(10):
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
        assert not load.broken
        victim = service.children()[0]
        os.kill(victim, signal.SIGKILL)
        until(lambda: victim not in service.children(), service)
        until(lambda: len(service.children()) == 3, service)
        until(lambda: serves(eight), service)

    assert load.broken <= connections  # what was in flight in the killed worker
    assert answers == {(three, 3), (eight, 8)}  # never a wrong one, never the corrupt one
    assert load.statuses.keys() == {("/predict", 200)}
    assert load.statuses.total() > 1000
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
