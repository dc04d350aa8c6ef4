"""A small real model, applications on it, and the service as a process."""

import signal

import pytest
from starlette.testclient import TestClient
from support.service_process import Process

from serve.app import create_app
from serve.settings import Settings


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


@pytest.fixture
def ready(start):
    """Starts the service as a process, and waits until it can predict."""

    def begin(*folder, **environment):
        process = start(*folder, **environment)
        process.ready()
        return process

    return begin


@pytest.fixture(scope="module")
def services(made, tmp_path_factory):
    """Finds the service of one worker with such limits that all tests of a module share."""
    running = {}

    def find(**limits):
        key = str(limits)
        if key not in running:
            folder = tmp_path_factory.mktemp("service")
            running[key] = Process(folder, MODEL_URI=made[3], API_WORKERS=1, **limits)
            running[key].ready()
        return running[key]

    yield find
    for process in running.values():
        process.stop(signal.SIGKILL)


@pytest.fixture
def service(services, request):
    """One worker with the limits of the test's parameters, which other tests have asked too."""
    return services(**getattr(request, "param", {}))
