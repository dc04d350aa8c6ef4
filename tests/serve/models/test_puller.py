"""When the process that follows the registry asks MLflow, and when a look is enough."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from support.bundles import bring
from support.mlflow_registry import Registry

from serve.models import bundle_cache, puller
from serve.models.puller import Puller
from serve.models.registry_look import look

URI = "models:/mnist-classifier@champion"


class EnoughError(Exception):
    pass


@pytest.fixture
def followed(settings, made, monkeypatch):
    """Follows what `looks` see in turn; how often MLflow was asked before each wait, and the cache.

    `spoil`, called before the third poll, gets the bundle in service.
    """

    def follow(looks, uri=URI, spoil=None, **changed):
        given = settings(model_uri=uri, **changed)
        cache, asked, found, left = (
            bundle_cache.open_cache(given, *given.sources),
            [],
            [],
            iter(looks),
        )
        monkeypatch.setattr(puller, "look", lambda *_: next(left))

        def brought():
            bring(cache, made[3], str(len(asked)))
            asked.append(True)

        def wait(seconds):
            assert 27 <= seconds <= 33
            found.append(len(asked))
            if spoil and len(found) == 2:
                spoil(cache.path(cache.pointer().current))
            if len(found) == len(looks):
                raise EnoughError

        try:
            Puller(given, brought, wait).run()
        except EnoughError:
            return found, cache
        return asked, cache

    return follow


def test_mlflow_is_asked_when_a_look_differs_or_cannot_tell(followed):
    found, _ = followed(["one", "one", "two", "two", None, None, "two", "two"])
    assert found == [1, 1, 2, 2, 3, 4, 5, 5]


def test_a_look_that_is_enough_is_a_check_that_ended_well(followed):
    def forget(bundle):
        for file in bundle.parent.glob("checked-*"):
            file.unlink()

    found, cache = followed(["one", "one", "one"], spoil=forget)
    assert found == [1, 1, 1]
    assert cache.checked()
    assert cache.failure() == ""


@pytest.mark.parametrize("name", ["model.tflite", "model.json"])
def test_a_corrupt_copy_is_brought_again_at_the_next_poll(followed, name):
    found, _ = followed(["one"] * 4, spoil=lambda bundle: (bundle / name).write_bytes(b"no"))
    assert found == [1, 1, 2, 2]


@pytest.mark.parametrize(("uri", "seconds"), [("models:/mnist-classifier/1", 30), (URI, 0)])
def test_what_cannot_move_or_is_not_followed_is_brought_once(followed, uri, seconds):
    asked, _ = followed([], uri, model_poll_seconds=seconds)
    assert asked == [True]


def test_all_models_are_brought_when_one_of_them_moved(settings, made, monkeypatch):
    given = settings(models="mnist-classifier,letters,fixed=models:/fixed/3")
    caches = [bundle_cache.open_cache(given, source) for source in given.sources]
    looks = {"mnist-classifier": iter("aaaab"), "letters": iter("ccddd")}
    monkeypatch.setattr(puller, "look", lambda uri, name, alias: next(looks[name]))
    brought, found = [], []

    def bring_all():
        brought.append(True)
        for cache in caches:
            bring(cache, made[3], "1")

    def wait(seconds):
        found.append(len(brought))
        if len(found) == 5:
            raise EnoughError

    with pytest.raises(EnoughError):
        Puller(given, bring_all, wait).run()
    assert found == [1, 1, 2, 2, 3]


def test_a_database_is_looked_at(tmp_path, made):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    registry = Registry(uri, (tmp_path / "artifacts").as_uri())
    versions = [registry.register(made[digit]) for digit in (3, 8)]
    assert look(uri, "mnist-classifier", "champion") is None
    found = []
    for version in (*versions, versions[0]):
        registry.promote(version)
        found += [look(uri, "mnist-classifier", "champion") for _ in range(2)]
    assert found[0] == found[1] == found[4] == found[5] != found[2] == found[3]
    assert look(f"{uri}?timeout=9", "mnist-classifier", "champion") == found[0]
    for other in (f"sqlite:///{tmp_path}/none.db", "postgresql://host/db", "nonsense"):
        assert look(other, "mnist-classifier", "champion") is None
    assert not (tmp_path / "none.db").exists()


@pytest.fixture
def server():
    """A registry of one version; what was asked of it. Its answer can be changed."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            serving.asked.append((urlsplit(self.path), self.headers["Authorization"]))
            self.send_response(serving.status)
            for name, value in serving.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(serving.body)

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as serving:
        serving.asked, serving.status, serving.headers = [], 200, {}
        serving.body = json.dumps({"model_version": {"name": "m", "version": "1"}}).encode()
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield serving
        serving.shutdown()


def test_a_server_is_asked_as_mlflow_asks_it(server):
    assert look(f"http://127.0.0.1:{server.server_port}/below/", "m", "a b") is not None
    ((address, credentials),) = server.asked
    assert address.path == "/below/api/2.0/mlflow/registered-models/alias"
    assert parse_qs(address.query) == {"name": ["m"], "alias": ["a b"]}
    assert credentials is None


def at(server, credentials):
    return f"http://{credentials}127.0.0.1:{server.server_port}"


def test_a_server_gets_the_credentials_in_its_address(server):
    look(at(server, "bob:hun%40ter@"), "m", "a")
    ((_, credentials),) = server.asked
    assert credentials == "Basic Ym9iOmh1bkB0ZXI="


def test_another_host_that_it_is_sent_to_gets_none(server):
    server.status = 302
    server.headers = {"Location": f"http://localhost:{server.server_port}/other"}
    assert look(at(server, "bob:hunter@"), "m", "a") is None
    first, *others = (credentials for _, credentials in server.asked)
    assert first
    assert others
    assert set(others) == {None}


def test_what_is_no_answer_or_no_address_tells_nothing(server):
    server.headers = {"Content-Length": "999"}  # more than comes
    assert look(f"http://127.0.0.1:{server.server_port}", "m", "a") is None
    assert look(at(server, "bob:sec/ret@"), "m", "a") is None
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer():
            with listening.accept()[0] as client:
                client.recv(65536)
                client.sendall(b"what?\r\n\r\n")

        answering = threading.Thread(target=answer)
        answering.start()
        assert look(f"http://127.0.0.1:{listening.getsockname()[1]}", "m", "a") is None
        answering.join()


def test_the_order_of_the_answer_says_nothing_and_each_value_does(server):
    def seen(content, status=200):
        server.body, server.status = content, status
        return look(f"http://127.0.0.1:{server.server_port}", "m", "a")

    one = seen(b'{"model_version": {"version": "1", "run_id": "x"}}')
    assert one == seen(b'{"model_version": {"run_id": "x", "version": "1"}}')
    assert one != seen(b'{"model_version": {"run_id": "y", "version": "1"}}')
    assert seen(b'{"error_code": "RESOURCE_DOES_NOT_EXIST"}', 404) is None
    for body in (b"{}", b"[]", b"<html>"):
        assert seen(body) is None
    server.shutdown()
    server.server_close()
    assert seen(b"") is None
