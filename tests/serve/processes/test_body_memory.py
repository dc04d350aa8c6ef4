"""The memory that bodies take, by real sockets and on WebSockets."""

import base64
import json
import threading

import pytest
from support.bundles import PNG, picture
from support.connections import (
    HANG,
    HEAD,
    connect,
    metric,
    next_status,
    read,
    refusal,
    status,
    websocket,
)
from support.processes import megabytes
from support.service_process import until
from websockets.exceptions import ConnectionClosed

LARGE = 400_000
LENGTH = b"Content-Length: %d\r\n\r\n" % LARGE
WAIT = HEAD + LENGTH + bytes(LARGE - 10)  # all but ten bytes


@pytest.fixture
def service(services):
    """Room for two large bodies, as an eighth is for small ones; none is held at first."""
    found = services(MAX_BODY_MEMORY=1_000_000)
    until(lambda: metric(found, "body_memory_bytes") == 0, found)
    return found


def large(service):
    """The status of a large body that is no picture."""
    return status(read(connect(service, HEAD + b"Connection: close\r\n" + LENGTH + bytes(LARGE))))


def await_held(service):
    until(lambda: metric(service, "body_memory_bytes") > 1.9 * LARGE, service)


def small(service):
    with service.client() as api:
        return api.post("/predict", content=picture(), headers=PNG).status_code


def test_large_bodies_are_refused_while_others_are_held_back_and_small_ones_are_not(service):
    held = [connect(service, WAIT), connect(service, WAIT)]
    await_held(service)
    answer = read(connect(service, HEAD + b"Connection: close\r\n" + LENGTH + bytes(LARGE)))
    assert b"retry-after: 1\r\n" in answer
    assert b"too many bytes at once" in answer
    assert [small(service) for _ in range(5)] == [200] * 5
    held.pop().close()  # gone
    until(lambda: large(service) == 400, service)
    held.append(connect(service, WAIT))
    await_held(service)
    assert large(service) == 503
    for one in held:
        one.sendall(bytes(10))
        assert next_status(one) == 400
        one.close()
    until(lambda: large(service) == 400, service)


def test_a_client_that_waits_is_refused_at_once_and_its_connection_goes_on(service):
    held = [connect(service, WAIT), connect(service, WAIT)]
    await_held(service)
    content = picture()
    for expects in (b"Expect: 100-continue\r\n", b""):
        with connect(service, HEAD + expects + LENGTH) as one:
            if not expects:
                one.sendall(bytes(LARGE))
            assert next_status(one) == 503
            if expects:
                one.sendall(bytes(LARGE))
            one.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(content) + content)
            assert next_status(one) == 200
    for one in held:
        one.close()


def test_bodies_without_a_length_count_as_they_come(service):
    part = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % LARGE + bytes(LARGE) + b"\r\n"
    held = [connect(service, HEAD + part), connect(service, HEAD + part)]
    await_held(service)
    with connect(service, HEAD + part + b"0\r\n\r\n") as third:
        assert next_status(third) == 503
    for one in held:
        one.sendall(b"0\r\n\r\n")
        assert next_status(one) == 400
        one.close()
    until(lambda: large(service) == 400, service)


def test_a_body_alone_may_be_larger_than_the_memory(services):
    service = services(MAX_BODY_MEMORY=100)
    assert large(service) == 400
    assert large(service) == 400


@pytest.mark.parametrize(
    "opening",
    [
        b"\x82\xff" + LARGE.to_bytes(8, "big") + bytes(4),  # one frame
        b"\x02\xff" + (LARGE - 20).to_bytes(8, "big") + bytes(4),  # the first of two
    ],
)
def test_messages_on_websockets_count_too(service, opening):
    with websocket(service) as first, websocket(service) as second, websocket(service) as third:
        for one in (first, second):
            one.socket.sendall(opening + bytes(LARGE - 20))
        await_held(service)
        assert large(service) == 503
        with refusal(service, "max_body_memory"):
            third.socket.sendall(opening + bytes(LARGE - 20))
            with pytest.raises(ConnectionClosed) as caught:
                third.recv(HANG)
        assert caught.value.rcvd.code == 1013
    until(lambda: large(service) == 400, service)


def test_an_answered_message_gives_its_memory_back(service):
    with websocket(service) as one:
        for _ in range(5):
            one.send(bytes(LARGE))
            assert json.loads(one.recv(HANG))["status"] == 400
            assert large(service) == 400
        assert large(service) == 400


def batch():
    """A batch of the largest size: four noisy pictures."""
    noise = picture(1100, "BMP")
    noise += bytes(5 * 2**20 - len(noise))
    one = base64.b64encode(noise).decode()
    return json.dumps({"images": [one] * 4}).encode()


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("held_back", [10, 0])
def test_the_largest_batches_at_once_stay_below_the_documented_memory(ready, held_back):
    service = ready(API_WORKERS=1)
    (worker,) = service.children()
    body, statuses, done = batch(), [], threading.Event()
    head = b"POST /predict/batch HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += b"Content-Length: %d\r\n\r\n" % len(body)
    sent = threading.Semaphore(0)

    def ask():
        with connect(service, head + body[: len(body) - held_back]) as one:
            sent.release()
            if held_back:
                assert done.wait(HANG)
                one.sendall(body[-held_back:])
            statuses.append(next_status(one))

    threads = [threading.Thread(target=ask) for _ in range(24 if held_back else 40)]
    for thread in threads:
        thread.start()
    assert [small(service) for _ in range(20)] == [200] * 20
    for _ in threads:
        assert sent.acquire(timeout=HANG)
    assert small(service) == 200
    done.set()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200, 503}
    assert statuses.count(200) >= 2
    assert megabytes(worker, "VmHWM") < 374  # docs/MEASUREMENTS.md
    with service.client(headers={"content-type": "application/json"}) as api:
        assert api.post("/predict/batch", content=body).status_code == 200
