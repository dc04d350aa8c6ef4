"""A log that cannot be written: the service answers all the same."""

import contextlib
import json
import os
import socket
from pathlib import Path

import pytest
from support.alerting import counters, free_port
from support.bundles import PNG, picture
from support.service_process import until

from serve.telemetry import logs

REQUESTS = 20


def filled(output):
    """Fills what is read later, until a write would wait."""
    os.set_blocking(output, False)
    for size in (4096, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(output, b"-" * size)
    os.set_blocking(output, True)
    return output


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    yield reader, writer
    for end in (reader, writer):
        with contextlib.suppress(OSError):  # a test has closed it
            os.close(end)


@pytest.fixture
def answers(start):
    """Starts the service with that output, and has it answer on one connection."""

    def begin(output):
        port = free_port()
        service = start(output=output, API_PORT=port, API_WORKERS=2)
        service.url = f"http://127.0.0.1:{port}"
        service.ready()
        with service.client() as api:
            for _ in range(REQUESTS):
                assert api.post("/predict", content=picture(), headers=PNG).status_code == 200
            found = counters(api.get("/metrics").text)
        return service, sum(found["access_log_lost_lines_total"].values())

    return begin


def test_a_full_pipe_loses_lines_until_it_is_read(answers, pipe):
    reader, writer = pipe
    service, lost = answers(filled(writer))
    assert lost == REQUESTS
    assert os.get_blocking(writer)  # as other programs that write to it expect
    os.set_blocking(reader, False)
    with contextlib.suppress(BlockingIOError):
        while os.read(reader, 65536):
            pass
    with service.client() as api:
        api.get("/nothing", headers={"x-request-id": "later"})
    read = b""

    def arrived():
        nonlocal read
        with contextlib.suppress(BlockingIOError):
            read += os.read(reader, 65536)
        return b"\n" in read

    until(arrived, service)
    assert json.loads(read)["request_id"] == "later"
    assert service.stop() == 0


@contextlib.contextmanager
def full_socket():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield filled(theirs.fileno())


@contextlib.contextmanager
def unread_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as output:
        yield output


def full_disk():
    return Path("/dev/full").open("wb")


@pytest.mark.parametrize("output", [full_socket, unread_pipe, full_disk])
def test_lines_that_cannot_be_written_are_lost_and_counted(answers, output):
    with output() as opened:
        service, lost = answers(opened)
        assert lost == REQUESTS
        assert service.stop() == 0


def test_a_line_that_did_not_fit_spoils_no_other(pipe, monkeypatch):
    reader, writer = pipe
    logs._unblock(filled(writer))
    with open(writer, "w", closefd=False) as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        output = logs.Output()
    os.read(reader, 8192)
    assert not output.write("x" * 20_000 + "\n")
    while os.read(reader, 65536)[-1:] != b"x":
        pass
    assert output.write("whole\n")
    assert os.read(reader, 100) == b"\nwhole\n"
