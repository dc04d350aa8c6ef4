"""Requests that are refused before or while they are read, by real sockets and real clients."""

import json
import os
import re
import signal
import socket
import subprocess
from contextlib import suppress

import pytest
from support.bundles import picture
from support.connections import HANG, HEAD, connect, limits, metric, next_status, read, status
from support.processes import megabytes, python
from support.service_process import until

MB = 2**20
KEEP = 64 * 1024  # what headers may take
small = limits(MAX_IMAGE_BYTES=1000)

URLLIB = """
import json, sys, urllib.request, urllib.error
try:
    urllib.request.urlopen(sys.argv[1], bytes(int(sys.argv[2])))
except urllib.error.HTTPError as error:
    print(error.code, json.load(error)["detail"])
"""
REQUESTS = """
import sys, requests
answer = requests.post(sys.argv[1], bytes(int(sys.argv[2])))
print(answer.status_code, answer.json()["detail"])
"""
HTTPX = """
import sys, httpx2
answer = httpx2.post(sys.argv[1], content=bytes(int(sys.argv[2])), timeout=60)
print(answer.status_code, answer.json()["detail"])
"""
CHUNKED = """
import sys, httpx2
parts = (bytes(2**16) for _ in range(int(sys.argv[2]) // 2**16))
answer = httpx2.post(sys.argv[1], content=parts, timeout=60)
print(answer.status_code, answer.json()["detail"])
"""


def parts(answer):
    """The status, the headers and the detail of the body."""
    head, _, body = answer.partition(b"\r\n\r\n")
    headers = dict(re.findall(r"([\w-]+): (.*)\r\n", head.decode() + "\r\n"))
    return status(answer), headers, json.loads(body)["detail"]


@small
def test_each_client_reads_why_its_upload_is_too_large(service):
    (worker, *_) = service.children()
    before = megabytes(worker, "VmHWM")
    url = f"{service.url}/predict"
    environment = {**os.environ, "NO_PROXY": "*"}
    for size in (20 * MB, 60 * MB):
        for program in (URLLIB, REQUESTS, HTTPX, CHUNKED):
            found = python("-c", program, url, str(size), env=environment)
            assert found.stdout.startswith("413 the body has more than"), found.stderr
        for expect in ("Expect;", "Expect: 100-continue"):  # without it, and with it
            command = ["curl", "-sS", "-w", " %{http_code}", "--noproxy", "*", "-H", expect]
            command += ["-H", "Content-Type: a/b", "--data-binary", "@-", url]
            found = subprocess.run(command, input=bytes(size), capture_output=True)
            assert found.stdout.endswith(b" 413"), found.stderr
        with connect(service, HEAD + b"Content-Length: %d\r\n\r\n" % size) as one:
            one.sendall(bytes(size))
            code, headers, detail = parts(read(one))
        assert (code, headers["connection"]) == (413, "close")
        assert "more than" in detail
    assert megabytes(worker, "VmHWM") < before + 20
    until(lambda: metric(service, "open_connections") == 1, service)
    assert metric(service, "active_requests") == 0


def send_for_ever(connection):
    """How much is taken before the connection is cut."""
    sent = 0
    with suppress(ConnectionError):
        while True:
            sent += connection.send(bytes(MB))
    return sent


@small
@pytest.mark.parametrize("framing", [b"Content-Length: 99999999999", b"Transfer-Encoding: chunked"])
def test_an_upload_without_end_is_cut(service, framing):
    sent = b"" if b"Length" in framing else b"fffffffff\r\n"
    with connect(service, HEAD + framing + b"\r\n\r\n" + sent) as one:
        assert 60 * MB < send_for_ever(one) < 100 * MB
    until(lambda: metric(service, "open_connections") == 1, service)


@limits(MAX_IMAGE_BYTES=1000, BODY_SECONDS=0.3)
def test_a_client_that_neither_sends_nor_closes_is_cut(service):
    with connect(service, HEAD + b"Content-Length: 99999999\r\n\r\n") as one:
        assert status(one.makefile("rb").read()) == 413  # its end has come, ours has not
        until(lambda: metric(service, "open_connections") == 1, service)


@pytest.mark.parametrize(
    "sent",
    [
        b"NONSENSE\r\n\r\n",
        b"STRANGE / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n" + bytes(MB),
    ],
)
def test_what_is_not_http_is_answered_in_json(service, sent):
    before = len(service.lines())
    code, headers, detail = parts(read(connect(service, sent)))
    assert (code, detail) == (400, "the request is not valid HTTP")
    assert headers["content-type"] == "application/json"
    assert re.fullmatch(r"[0-9a-f]{24}", headers["x-request-id"])
    until(lambda: metric(service, "open_connections") == 1, service)
    assert metric(service, "active_requests") == 0
    lines = service.lines()[before:]
    assert [e["level"] for e in lines if "Invalid HTTP" in e["message"]] == ["warning"]


def head_of(size, name=b"x"):
    """A request whose URL and headers have this size."""
    rest = len(b"/health/live" + b"host" + b"x" + name)
    return b"GET /health/live HTTP/1.1\r\nHost: x\r\n%s: %s\r\n\r\n" % (name, b"y" * (size - rest))


def test_a_head_of_just_the_limit_passes_and_no_larger_one(service):
    with connect(service) as one:
        for _ in range(3):
            one.sendall(head_of(KEEP))
            assert next_status(one) == 200
        one.sendall(head_of(KEEP + 1) + head_of(100))
        code, headers, detail = parts(read(one))
    assert (code, detail) == (431, "the headers are too large")
    assert headers["x-request-id"]
    (worker,) = service.children()
    before = megabytes(worker)
    many = b"".join(b"x%d: y\r\n" % number for number in range(20_000))
    for sent in (
        head_of(100_000),
        head_of(20 * MB),
        b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"y" * 70_000),
        b"GET / HTTP/1.1\r\n" + many + b"\r\n",
        HEAD + b"x: " + b"y" * 70_000 + b"\r\nContent-Length: 9000000\r\n\r\n" + bytes(9_000_000),
        HEAD.replace(b"POST", b"GET")
        + b"Upgrade: websocket\r\nConnection: Upgrade\r\nx: "
        + b"y" * 70_000
        + b"\r\n\r\n",
    ):
        assert status(read(connect(service, sent))) == 431
    assert megabytes(worker) < before + 20
    until(lambda: metric(service, "open_connections") == 1, service)


def test_a_head_right_after_a_large_body_is_not_too_large(service):
    body = HEAD + b"Content-Length: 100000\r\n\r\n" + bytes(100_000)
    (worker,) = service.children()
    os.kill(worker, signal.SIGSTOP)  # so that it reads all at once
    with connect(service, body + b"GET /hea") as one:
        os.kill(worker, signal.SIGCONT)
        assert next_status(one) == 400
        one.settimeout(HANG)
        one.sendall(b"lth/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert next_status(one) == 200


@pytest.mark.parametrize("part", [b"x: " + b"y" * 4096 + b"\r\n", b"y" * 4096])
def test_endless_trailers_are_refused_before_they_fill_the_memory(service, part):
    (worker,) = service.children()
    before = megabytes(worker)
    connection = connect(service, HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nx: ")
    for _ in range(10_000):
        connection.sendall(part)
    assert status(read(connection)) == 431
    assert megabytes(worker) < before + 20


OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n"


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("piece", [1, 100, 10**6])
def test_an_offer_of_another_protocol_is_ignored(service, chunked, piece):
    """The body is read, and so is the next request, however the bytes come."""
    body = picture()
    if chunked:
        framed = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    else:
        framed = b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    last = HEAD + b"Connection: close\r\n" + framed
    sent = HEAD + OFFER + framed + HEAD + framed + last
    with connect(service) as connection, connection.makefile("rb") as file:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for place in range(0, len(sent), piece):
            connection.sendall(sent[place : place + piece])
        answers = file.read()
    assert answers.count(b"HTTP/1.1 200 OK") == answers.count(b'"prediction":3') == 3
    assert answers.count(b"HTTP/1.1") == 3


def test_what_is_malformed_after_an_ignored_offer_is_refused(service):
    code, _, detail = parts(read(connect(service, HEAD + OFFER + b"Content-Length: a\r\n\r\n")))
    assert (code, detail) == (400, "the request is not valid HTTP")
