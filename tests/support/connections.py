"""Sockets and WebSockets to a service, and what it says of connections."""

import socket
from contextlib import contextmanager
from http.client import HTTPResponse

import pytest
from websockets.sync.client import connect as open_websocket

HANG = 60  # seconds after which nothing more is expected
HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"


def limits(**given):
    return pytest.mark.parametrize("service", [given], indirect=True)


def connect(service, sent=b""):
    host, port = service.url.removeprefix("http://").split(":")
    found = socket.create_connection((host, int(port)), HANG)
    found.sendall(sent)
    return found


def websocket(service):
    url = service.url.replace("http", "ws") + "/predict/stream"
    return open_websocket(url, close_timeout=1)  # one that is amid a message says no goodbye


def read(connection):
    """All that comes until the other side closes; a reset is an error."""
    with connection, connection.makefile("rb") as file:
        return file.read()


def metric(service, name):
    """The value of a series, asked on a connection of its own."""
    found = read(connect(service, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")).decode()
    return next(float(line.split()[1]) for line in found.splitlines() if line.startswith(name))


def refused(service, reason):
    return metric(service, f'connections_refused_total{{reason="{reason}"}}')


@contextmanager
def refusal(service, reason):
    """That one connection is refused meanwhile for that reason."""
    before = refused(service, reason)
    yield
    assert refused(service, reason) == before + 1


def status(response):
    return int(response.split()[1]) if response else None


def next_status(connection):
    """Reads one response; the connection stays open."""
    response = HTTPResponse(connection)
    response.begin()
    response.read()
    return response.status
