"""The client of the replicas, with small servers in their place."""

import io
import socket
import time
from contextlib import ExitStack
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from support.alerting import free_port
from support.web_server import Handler, serving

from monitoring.drift import service_client
from monitoring.drift.service_client import ReplicasError, fetch
from serve.models.drift_reference import Reference


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def window(**changed):
    arrays = {
        "images": np.ones((4, 28, 28), np.uint8),
        "probabilities": np.full((4, 10), 0.1, "f4"),
        "versions": np.array(["3"] * 4),
        "times": np.arange(4),
    }
    file = io.BytesIO()
    np.savez_compressed(file, **(arrays | changed))
    return file.getvalue()


def expected(share):
    return npz(**Reference(np.full((5, 10), share, "f4"), np.ones((5, 4), "f4"))._asdict())


CORRUPT = bytearray(window())
CORRUPT[64:72] = b"\xff" * 8  # within what is packed
CORRUPT = bytes(CORRUPT)


class Stub:
    """Answers as the service does. `ink` marks its images, `times` are those of its answers."""

    def __init__(self, **attributes):
        self.version, self.versions, self.times, self.ink = "3", ["3"] * 4, range(4), 1
        self.broken, self.pause = {}, 0
        self.asked = []
        self.__dict__.update(attributes)
        stub = self

        class Replica(Handler):
            def respond(self):
                stub.asked.append((self.path, dict(self.headers)))
                parts = urlsplit(self.path)
                status, content = stub.broken.get(parts.path) or (200, stub.content(parts))
                about = {"X_Model_Version": stub.version}
                if not stub.pause:
                    self.answer(status, content, **about)
                    return
                self.answer(status, Content_Length=str(len(content)), **about)
                for place in range(len(content)):  # too few for a timeout, too slow to end
                    self.wfile.write(content[place : place + 1])
                    time.sleep(stub.pause)

        self.handler = Replica

    def content(self, parts):
        if parts.path == "/api/reference":
            return expected(int(self.version))
        n = len(self.times)
        most = int(parse_qs(parts.query)["images"][0])
        arrays = {
            "images": np.full((n, 28, 28), self.ink, np.uint8),
            "probabilities": np.full((n, 10), 0.1, "f4"),
            "versions": np.array(self.versions),
            "times": np.array(self.times, np.int64),
        }
        return npz(**{name: part[-most:] for name, part in arrays.items()})


@pytest.fixture
def serve():
    with ExitStack() as running:

        def start(*address, **attributes):
            stub = Stub(**attributes)
            server = running.enter_context(serving(stub.handler, *address))
            stub.url, stub.port = server.url, server.server_port
            return stub

        yield start


def test_answers_of_all_are_put_in_order_and_the_latest_kept(serve):
    one, other = serve(times=[1, 4, 6, 8], ink=1), serve(times=[2, 3, 5, 9], ink=2)
    response = fetch([one.url, other.url + "/"], "", 4, 0)
    assert response.version == "3"
    assert response.predictions.times.tolist() == [5, 6, 8, 9]
    assert response.predictions.images[:, 0, 0].tolist() == [2, 1, 1, 2]
    assert (response.reference.probabilities == 3).all()


def test_answers_of_another_version_are_left_out(serve):
    response = fetch([serve(versions=["2", "3", "4", "3"]).url], "", 10, 0)
    assert response.predictions.times.tolist() == [1, 3]


def test_answers_from_before_are_left_out(serve):
    urls = [serve(times=[1, 4, 6, 8]).url, serve(times=[2, 3, 5, 9]).url]
    assert fetch(urls, "", 10, since=5).predictions.times.tolist() == [5, 6, 8, 9]
    assert fetch(urls, "", 3, since=5).predictions.times.tolist() == [6, 8, 9]
    assert len(fetch(urls, "", 10, since=10).predictions.images) == 0


def test_most_decide_on_the_version(serve):
    old = serve(version="3")
    new = [serve(version="4", versions=["3", "3", "4", "4"], times=[k, 10, 11, 12]) for k in (5, 6)]
    response = fetch([old.url, *(each.url for each in new)], "", 10, 0)
    assert response.version == "4"
    assert (response.reference.probabilities == 4).all()
    assert response.predictions.versions.tolist() == ["4"] * 4


def test_one_that_does_not_answer_is_left_out_with_a_warning(serve, caplog):
    url = f"http://127.0.0.1:{free_port()}"
    response = fetch([url, serve().url], "", 10, 0)
    assert len(response.predictions.times) == 4
    (said,) = caplog.messages
    assert url in said


@pytest.mark.parametrize(
    ("path", "status", "content"),
    [
        ("/api/reference", 404, b'{"detail": "the bundle has no reference.npz"}'),
        ("/api/reference", 200, b"no archive"),
        ("/api/window", 401, b'{"detail": "an API key is needed"}'),
        ("/api/window", 200, b"PK\x03\x04 half of one"),
        ("/api/window", 200, npz(images=np.zeros(3))),
        ("/api/window", 200, b""),
        ("/api/window", 200, CORRUPT),
        ("/api/window", 200, window(images=np.zeros(4, np.uint8))),
        ("/api/window", 200, window(images=np.full((4, 28, 28), np.nan))),
        ("/api/window", 200, window(probabilities=np.full((4, 3), 0.3, "f4"))),
        ("/api/window", 200, window(probabilities=np.full((4, 10), np.nan, "f4"))),
        ("/api/window", 200, window(times=np.arange(3))),
        ("/api/window", 200, window(times=np.int64(4))),
        ("/api/reference", 200, expected(np.nan)),
        ("/api/window", 200, window(more=np.zeros(60 * 2**20, np.uint8))),
        ("/api/window", 200, bytes(51 * 2**20)),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else None,
)
def test_when_none_answers_as_it_should_that_is_an_error(serve, path, status, content):
    stub = serve(broken={path: (status, content)})
    with pytest.raises(ReplicasError, match=f"^{stub.url}: ") as error:
        fetch([stub.url], "", 10, 0)
    if status != 200:
        assert str(status) in str(error.value)
    assert len(fetch([stub.url, serve().url], "", 10, 0).predictions.times) == 4


def test_one_that_never_ends_is_left_out(serve, monkeypatch):
    monkeypatch.setattr(service_client, "RESPONSE_SECONDS", 0.5)
    slow = serve(pause=0.1)  # the whole response would take minutes
    with pytest.raises(ReplicasError, match="not complete"):
        fetch([slow.url], "", 10, 0)


def test_a_name_without_an_address_is_one_that_does_not_answer(serve, caplog):
    assert fetch(["http://nowhere.invalid:8000", serve().url], "", 1, 0).version == "3"
    assert "nowhere.invalid" in caplog.text
    with pytest.raises(ReplicasError, match=r"nowhere\.invalid"):
        fetch(["http://nowhere.invalid:8000"], "", 1, 0)
    with pytest.raises(ReplicasError, match="no address"):
        fetch([], "", 1, 0)


def resolves(monkeypatch, *addresses):
    def getaddrinfo(host, port, *_, **__):
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_STREAM,
                0,
                "",
                (address, port),
            )
            for address in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_every_address_of_a_name_is_asked_by_that_name(serve, monkeypatch):
    one = serve("127.0.0.1", times=[1, 2, 3, 4])
    other = serve("127.0.0.2", one.port, times=[5, 6, 7, 8])
    with monkeypatch.context() as patched:
        patched.setattr(
            service_client,
            "replicas",
            lambda url: [
                service_client.Replica(f"http://{address}:{one.port}", f"digits:{one.port}")
                for address in ("127.0.0.1", "127.0.0.2")
            ],
        )
        response = fetch([f"http://digits:{one.port}"], "secret", 10, 0)
    assert response.predictions.times.tolist() == list(range(1, 9))
    for _, headers in one.asked + other.asked:
        assert headers["Host"] == f"digits:{one.port}"
        assert headers["X-API-Key"] == "secret"


def test_the_addresses_of_a_name(monkeypatch):
    resolves(monkeypatch, "10.0.0.2", "10.0.0.1", "10.0.0.2", "::1")
    found = list(service_client.replicas("http://digits:8000/"))
    assert found == [(f"http://10.0.0.{n}:8000", "digits:8000") for n in (1, 2)]
    resolves(monkeypatch, "fd00::1")
    assert list(service_client.replicas("http://digits/at")) == [("http://[fd00::1]/at", "digits")]
    # A certificate is for a name.
    secure = [("https://digits.example.com", "digits.example.com")]
    assert list(service_client.replicas("https://digits.example.com/")) == secure
