"""Limits on the time and the number of connections, by real sockets."""

import contextlib
import json
import socket

import pytest
from support.bundles import picture
from support.connections import (
    HANG,
    HEAD,
    connect,
    limits,
    metric,
    next_status,
    read,
    refusal,
    refused,
    status,
    websocket,
)
from support.service_process import until
from websockets.exceptions import ConnectionClosed

from serve.processes.proxies import TrustedHosts

quick = limits(HEAD_SECONDS=0.3, BODY_SECONDS=0.3)


def warnings(service, reason):
    return [line for line in service.lines() if line["message"].startswith(f"{reason.upper()}:")]


def body_of(response):
    return json.loads(response.partition(b"\r\n\r\n")[2])


@quick
@pytest.mark.parametrize("sent", [b"G", HEAD])
def test_a_head_that_takes_too_long_is_answered_with_408(service, sent):
    with refusal(service, "head_seconds"):
        answer = read(connect(service, sent))
    assert (status(answer), body_of(answer)) == (408, {"detail": "the headers took too long"})
    assert b"x-request-id: " in answer
    assert warnings(service, "head_seconds")


@quick
def test_a_head_that_comes_byte_by_byte_is_no_progress(service):
    with connect(service, b"GET / HTTP/1.1\r\nx: ") as connection:
        connection.settimeout(0.05)
        answer = b""
        while not answer:
            connection.sendall(b"y")
            with contextlib.suppress(TimeoutError):
                answer = connection.recv(1000)
    assert status(answer) == 408


@quick
def test_a_second_head_on_a_connection_has_its_own_time(service):
    connection = connect(service)
    assert [ask(connection) for _ in range(3)] == [200] * 3
    connection.sendall(b"GET /he")
    assert status(read(connection)) == 408


@quick
@pytest.mark.parametrize(
    "framing", [b"Content-Length: 99\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"]
)
def test_a_body_that_takes_too_long_is_answered_with_408(service, framing):
    with refusal(service, "body_seconds"):
        answer = read(connect(service, HEAD + b"X-Request-ID: mine\r\n" + framing))
    assert (status(answer), body_of(answer)) == (408, {"detail": "the body took too long"})
    assert b"x-request-id: mine" in answer
    count = 'api_requests_total{endpoint="/predict",method="POST",status_code="408"}'
    assert metric(service, count) >= 1
    assert metric(service, "active_requests") == 0
    assert {e["status"] for e in service.lines() if e.get("request_id") == "mine"} == {408}


@limits(BODY_SECONDS=0.3, API_KEYS="one")  # pragma: allowlist secret
def test_a_body_is_late_too_if_its_request_has_an_answer(service):
    with refusal(service, "body_seconds"):
        answer = read(connect(service, HEAD + b"Content-Length: 99\r\n\r\n"))
    assert status(answer) == 401


def test_a_slow_upload_that_goes_on_is_read(service):
    content = picture()
    connection = connect(service, HEAD + b"Content-Length: %d\r\n\r\n" % len(content))
    for place in range(len(content)):
        connection.sendall(content[place : place + 1])
    assert next_status(connection) == 200
    connection.close()


@limits(API_KEYS="one", HEAD_SECONDS=0.3)  # pragma: allowlist secret
def test_a_websocket_without_its_key_is_closed(service):
    with websocket(service) as one, pytest.raises(ConnectionClosed) as caught:
        one.recv(HANG)
    assert caught.value.rcvd.code == 1008
    count = 'api_requests_total{endpoint="/predict/stream",method="WS",status_code="401"}'
    assert metric(service, count) == 1


@limits(IDLE_SECONDS=0.3)
def test_an_idle_websocket_is_closed(service):
    with websocket(service) as one:
        one.send(picture())
        assert json.loads(one.recv(HANG))["prediction"] == 3
        with pytest.raises(ConnectionClosed) as caught:
            one.recv(HANG)
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1001, "closed after IDLE_SECONDS")
    assert refused(service, "idle_seconds") == 1
    until(lambda: metric(service, "open_connections") == 1, service)  # of the one that asks


@quick
@pytest.mark.parametrize(
    "part",
    [b"\x82", b"\x02\x81\0\0\0\0x"],  # of a frame; a whole frame of a message
)
def test_a_message_that_takes_too_long_closes_its_websocket(service, part):
    with refusal(service, "body_seconds"), websocket(service) as one:
        one.socket.sendall(part)
        with pytest.raises(ConnectionClosed, match="closed after BODY_SECONDS"):
            one.recv(HANG)


def ask(connection):
    connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    return next_status(connection)


@limits(MAX_CONNECTIONS=8)
def test_one_connection_too_many_is_answered_with_503(service):
    held = [connect(service) for _ in range(8)]
    assert {ask(one) for one in held} == {200}
    for sent in (b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", HEAD + b"Content-Length: 9\r\n\r\n"):
        answer = read(connect(service, sent))
        assert status(answer) == 503
        assert b"retry-after: 1\r\n" in answer
        assert b"x-request-id: " in answer
        assert "too many connections" in body_of(answer)["detail"]
    assert ask(held[0]) == 200  # who is in stays in
    for one in held:
        one.close()
    until(lambda: ask_new(service) == 200, service)
    until(lambda: metric(service, "open_connections") == 1, service)
    assert refused(service, "max_connections") >= 3
    (line,) = warnings(service, "max_connections")
    assert "127.0.0.1" in line["message"]


def ask_new(service):
    with connect(service) as one:
        return ask(one)


@limits(MAX_CONNECTIONS_PER_ADDRESS=4)
def test_a_cap_on_each_address(service):
    held = [connect(service) for _ in range(4)]
    assert {ask(one) for one in held} == {200}
    assert status(read(connect(service))) == 503
    other = socket.create_connection(held[0].getpeername(), HANG, ("127.0.0.2", 0))
    assert ask(other) == 200
    for one in (*held, other):
        one.close()
    until(lambda: ask_new(service) == 200, service)
    assert refused(service, "max_connections_per_address") >= 1
    assert refused(service, "max_connections") == 0


@limits(MAX_CONNECTIONS_PER_ADDRESS=4, TRUSTED_PROXIES="127.0.0.0/30")
def test_a_trusted_proxy_may_have_more(service):
    held = [connect(service) for _ in range(20)]
    assert {ask(one) for one in held} == {200}
    for one in held:
        one.close()


@limits(MAX_CONNECTIONS=2, IDLE_SECONDS=0.3)
def test_websockets_count_and_make_room_when_they_close(service):
    with websocket(service), websocket(service):
        assert status(read(connect(service))) == 503
        until(lambda: ask_new(service) == 200, service)
    until(lambda: metric(service, "open_connections") == 1, service)


def test_files_are_allowed_for_the_connections(ready):
    few_files = "sh", "-c", 'ulimit -Sn 64 && exec "$@"', "sh"
    service = ready(enter=few_files, API_WORKERS=1, MAX_CONNECTIONS=100)
    held = [connect(service) for _ in range(100)]
    assert {ask(one) for one in held} == {200}
    assert status(read(connect(service))) == 503
    for one in held:
        one.close()


@pytest.mark.parametrize(
    ("proxies", "header", "address"),
    [
        ("10.0.0.0/8", "203.0.113.5", "203.0.113.5"),
        ("10.0.0.0/8", "1.2.3.4, 203.0.113.5", "203.0.113.5"),
        ("10.0.0.0/8", "1.2.3.4, 203.0.113.5, 10.0.0.2", "203.0.113.5"),
        ("10.0.0.0/8", "10.9.9.9, 10.1.2.3", "10.1.2.3"),
        ("10.0.0.0/8", "10.9.9.9,, 10.1.2.3", ""),
        ("*", "1.2.3.4, 203.0.113.5", "203.0.113.5"),
        ("*", "[2001:db8::1]:80", "2001:db8::1"),
    ],
)
def test_the_address_is_what_a_trusted_proxy_saw(proxies, header, address):
    assert TrustedHosts(proxies).get_trusted_client_address(header)[0] == address


@pytest.mark.fault(
    "addresses made up in `X-Forwarded-For`", "0", "429 for the address that the trusted proxy saw"
)
@limits(RATE_LIMIT="2/minute", TRUSTED_PROXIES="127.0.0.1")
def test_a_caller_cannot_choose_its_address_for_the_rate_limit(service):
    statuses = []
    with service.client() as api:
        for number in range(4):
            chain = {"x-forwarded-for": f"127.0.0.1, 198.51.100.{number}, 203.0.113.5"}
            statuses.append(api.post("/predict", json={}, headers=chain).status_code)
        for number in range(4):  # of a caller beside the proxy
            chain = {"x-forwarded-for": f"198.51.100.{number}"}
            statuses.append(api.post("/predict", json={}, headers=chain).status_code)
    assert statuses == [422, 422, 429, 429] + [422] * 4
