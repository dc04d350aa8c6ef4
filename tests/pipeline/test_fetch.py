"""`fetch` against a web server on the loopback that misbehaves as told."""

from __future__ import annotations

import copy
import functools
import gzip
import hashlib
import io
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from pipeline import fetch
from pipeline.config import CONF, Config, PipelineError, environment, register_schema, resolved
from pipeline.data.dataset import write_idx
from pipeline.fetching import download

ROOT = Path(__file__).parents[2]
RAW = Path("data/raw/mnist")
IMAGES, LABELS, TEST_IMAGES, TEST_LABELS = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
KERAS = {"x_train": IMAGES, "y_train": LABELS, "x_test": TEST_IMAGES, "y_test": TEST_LABELS}
ANSWER_SECONDS = download.ANSWER_SECONDS  # before the tests shorten it

Behaviour = Callable[["Handler", bytes], None]


class Server(ThreadingHTTPServer):
    """Serves `files` with ranges; the next answers for a path in `script` come first."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.script: dict[str, list[Behaviour]] = {}
        self.requests: list[tuple[str, str | None]] = []  # path, Range
        self.sent: list[int] = []  # bytes of each body
        self.released = threading.Event()  # ends what stalls

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]

    def ranges(self, path: str) -> list[str | None]:
        return [asked for requested, asked in self.requests if requested == path]

    def offer(self, folder: str, files: dict[str, bytes], level: int = 9) -> str:
        for name, content in files.items():
            self.files[f"/{folder}/{name}.gz"] = gzip.compress(content, level, mtime=0)
        return f"{self.url}/{folder}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers.get("Range")))
        behaviours = self.server.script.get(self.path)
        content = self.server.files.get(self.path)
        if behaviours:
            behaviours.pop(0)(self, content or b"")
        elif content is None:
            self.send_error(404)
        else:
            well_behaved(self, content)

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        self.server.sent.append(len(body))

    def log_message(self, *args: object) -> None:
        """Quiet."""


def well_behaved(handler: Handler, content: bytes) -> None:
    asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    if asked and int(asked[1]) >= len(content):
        handler.answer(416, b"", Content_Range=f"bytes */{len(content)}")
    elif asked:
        start = int(asked[1])
        where = f"bytes {start}-{len(content) - 1}/{len(content)}"
        handler.answer(206, content[start:], Content_Range=where)
    else:
        handler.answer(200, content)


def status(code: int, **headers: str) -> Behaviour:
    return lambda handler, _: handler.answer(code, b"no", **headers)


def cut_off(after: int) -> Behaviour:
    return lambda handler, content: handler.answer(
        200, content[:after], Content_Length=str(len(content))
    )


def stall(after: int) -> Behaviour:
    def behave(handler: Handler, content: bytes) -> None:
        cut_off(after)(handler, content)
        handler.server.released.wait(60)

    return behave


def never_answer(handler: Handler, content: bytes) -> None:
    handler.server.released.wait(60)


def ignore_range(handler: Handler, content: bytes) -> None:
    handler.answer(200, content)


def compress_if_accepted(handler: Handler, content: bytes) -> None:
    if "gzip" in handler.headers.get("Accept-Encoding", ""):
        handler.answer(200, gzip.compress(content), Content_Encoding="gzip")
    else:
        handler.answer(200, content)


def redirect_to_itself(handler: Handler, content: bytes) -> None:
    handler.answer(302, b"", Location=handler.path)


def other_range(handler: Handler, content: bytes) -> None:
    handler.answer(206, content[1:], Content_Range=f"bytes 1-{len(content) - 1}/{len(content)}")


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def published() -> dict[str, bytes]:
    """Noise in the shape of MNIST, so that it hardly compresses: 60 and 20 images."""
    random = np.random.default_rng(0)
    arrays = {
        IMAGES: random.integers(0, 256, (60, 28, 28), np.uint8),
        LABELS: random.integers(0, 10, 60, np.uint8),
        TEST_IMAGES: random.integers(0, 256, (20, 28, 28), np.uint8),
        TEST_LABELS: random.integers(0, 10, 20, np.uint8),
    }
    return {name: write_idx(array) for name, array in arrays.items()}


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, no variables, no patience."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.delenv("MNIST_MIRROR", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(download, "ANSWER_SECONDS", 2.0)
    monkeypatch.setattr(download, "STALL_SECONDS", 0.3)
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.001)


@pytest.fixture
def config(published: dict[str, bytes]) -> Config:
    """The real configuration, but for the files' hashes and no mirror."""
    config = composed("mnist")
    config.data.files = {n: hashlib.sha256(c).hexdigest() for n, c in published.items()}
    config.data.mirrors = []
    return config


def composed(data: str) -> Config:
    return copy.deepcopy(_composed(data))


@functools.cache
def _composed(data: str) -> Config:
    register_schema()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        picks = [f"data={data}", "seed=1", "threads=1", "runs=[1]"]
        return resolved(compose("config", picks), "1")


def fetch_from(config: Config, *mirrors: str) -> None:
    config.data.mirrors = list(mirrors)
    fetch.main(config)


def contents(folder: Path = RAW) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write_folder(folder: Path, files: dict[str, bytes]) -> str:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return str(folder)


def keras_npz(published: dict[str, bytes]) -> bytes:
    arrays = {key: fetch.read_idx(published[name], name) for key, name in KERAS.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


# Where files come from


def test_compressed_files_of_a_web_folder_are_stored_decompressed(server, config, published):
    fetch_from(config, server.offer("mnist", published) + "/")
    assert contents() == published


def test_plain_files_are_taken_where_there_are_no_compressed_ones(server, config, published):
    server.files = {f"/{name}": content for name, content in published.items()}
    fetch_from(config, server.url)
    assert contents() == published
    assert server.paths[:2] == [f"/{IMAGES}.gz", f"/{IMAGES}"]


def test_a_server_that_compresses_what_it_sends_is_told_not_to(server, config, published):
    server.files = {f"/{name}": content for name, content in published.items()}
    server.script = {f"/{name}": [compress_if_accepted] for name in published}
    fetch_from(config, server.url)
    assert contents() == published


def test_a_mirror_may_compress_in_its_own_way(server, config, published):
    first, other = server.offer("a", published, level=1), server.offer("b", published, level=9)
    assert server.files[f"/a/{LABELS}.gz"] != server.files[f"/b/{LABELS}.gz"]
    fetch_from(config, first)
    from_first = contents()
    for path in RAW.iterdir():
        path.unlink()
    fetch_from(config, other)
    assert from_first == contents() == published


def test_keras_archive_is_downloaded_once_and_gives_the_published_bytes(server, config, published):
    server.files["/mnist.npz"] = keras_npz(published)
    fetch_from(config, f"{server.url}/mnist.npz")
    assert contents() == published
    assert server.paths == ["/mnist.npz"]


def test_keras_archive_may_be_a_file(config, published, tmp_path):
    (tmp_path / "mnist.npz").write_bytes(keras_npz(published))
    fetch_from(config, "mnist.npz")
    assert contents() == published


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


@pytest.mark.parametrize("content", [b"PK\3\4 and so on", b"", npy()], ids=["zip", "none", "npy"])
def test_an_archive_of_something_else_is_refused_once(server, config, content):
    server.files["/mnist.npz"] = content
    with pytest.raises(PipelineError, match=r"mnist\.npz: not Keras' mnist\.npz"):
        fetch_from(config, f"{server.url}/mnist.npz")
    assert server.paths == ["/mnist.npz"]


def test_arrays_with_pickled_objects_are_not_loaded(server, config):
    buffer = io.BytesIO()
    np.savez(buffer, **{key: np.array([{}], object) for key in KERAS})
    server.files["/mnist.npz"] = buffer.getvalue()
    with pytest.raises(PipelineError, match="allow_pickle=False"):
        fetch_from(config, f"{server.url}/mnist.npz")


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_own_mirror_comes_first_and_may_be_a_folder(
    server, config, published, tmp_path, monkeypatch, scheme
):
    mirror = write_folder(tmp_path / "own", published)
    monkeypatch.setenv("MNIST_MIRROR", scheme + mirror)
    fetch_from(config, server.offer("mnist", published))
    assert contents() == published
    assert server.requests == []


def test_own_mirror_may_be_an_address(server, config, published, monkeypatch):
    monkeypatch.setenv("MNIST_MIRROR", server.offer("own", published))
    fetch_from(config)
    assert contents() == published


def test_own_mirror_of_mnist_is_not_asked_for_other_data(server, monkeypatch):
    monkeypatch.setenv("MNIST_MIRROR", server.url)
    fetch.main(composed("digits"))
    assert server.requests == []


def test_relative_mirror_lies_beside_the_true_root(config, published, tmp_path, monkeypatch):
    write_folder(tmp_path / "shared/mnist", published)
    (tmp_path / "repository").mkdir()
    (tmp_path / "temporary/copy").mkdir(parents=True)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "repository"))
    monkeypatch.chdir(tmp_path / "temporary/copy")
    fetch_from(config, "../shared/mnist")
    assert contents() == published


@pytest.fixture
def exported(config, published, tmp_path, monkeypatch) -> Config:
    """The configuration with feedback, whose export lies in the root of the repository."""
    root = tmp_path / "root"
    (root / "data").mkdir(parents=True)
    (root / "data/feedback.npz").write_bytes(b"an export")
    monkeypatch.setenv("DVC_ROOT", str(root))
    write_folder(root / "mirror", published)
    told = composed("mnist_feedback")
    told.data.files = config.data.files
    told.data.feedback.sha256 = hashlib.sha256(b"an export").hexdigest()
    return told


TOLD = Path("data/raw/mnist_feedback")


def test_feedback_lies_beside_the_published_files_also_in_a_temporary_copy(exported, published):
    fetch_from(exported, "mirror")
    assert contents(TOLD) == {**published, "feedback.npz": b"an export"}
    (TOLD / "feedback.npz").write_bytes(b"damaged")
    fetch_from(exported)
    assert contents(TOLD)["feedback.npz"] == b"an export"


def test_feedback_that_is_there_and_right_needs_no_export(exported, published):
    fetch_from(exported, "mirror")
    environment.root().joinpath("data/feedback.npz").unlink()
    fetch_from(exported)
    assert contents(TOLD)["feedback.npz"] == b"an export"


def test_another_export_than_the_configured_one_is_refused(exported):
    environment.root().joinpath("data/feedback.npz").write_bytes(b"a later export")
    with pytest.raises(PipelineError, match=r"dvc pull data/feedback\.npz\.dvc, or export it anew"):
        fetch_from(exported, "mirror")
    assert "feedback.npz" not in contents(TOLD)


def test_without_an_export_the_command_is_named_and_no_mirror_is_asked_for_it(exported):
    exported.data.feedback.sha256 = None
    with pytest.raises(PipelineError, match=r"no feedback .* python -m pipeline\.feedback"):
        fetch_from(exported, "mirror")


def test_digits_come_out_of_the_installed_package():
    config = composed("digits")
    fetch.main(config)
    files = contents(Path("data/raw/digits"))
    assert {n: hashlib.sha256(c).hexdigest() for n, c in files.items()} == config.data.files
    assert files["digits.csv"].count(b"\n") == 1797


def test_mirrors_are_asked_in_order_and_only_for_what_is_missing(server, config, published):
    first = server.offer("first", {IMAGES: published[IMAGES]})
    second = server.offer("second", published)
    server.files["/third.npz"] = keras_npz(published)
    fetch_from(config, first, second, f"{server.url}/third.npz")
    assert contents() == published
    assert f"/second/{IMAGES}.gz" not in server.paths
    assert f"/second/{LABELS}.gz" in server.paths
    assert "/third.npz" not in server.paths


# What is already there


def test_what_is_there_and_right_is_neither_fetched_nor_written(server, config, published):
    mirror = server.offer("mnist", published)
    fetch_from(config, mirror)
    before = {path: path.stat().st_mtime_ns for path in RAW.iterdir()}
    server.requests.clear()
    fetch_from(config, mirror)
    assert {path: path.stat().st_mtime_ns for path in RAW.iterdir()} == before
    assert server.requests == []


def test_a_damaged_file_is_replaced_alone(server, config, published):
    write_folder(RAW, published | {LABELS: b"damaged"})
    fetch_from(config, server.offer("mnist", published))
    assert contents() == published
    assert server.paths == [f"/mnist/{LABELS}.gz"]


def test_whatever_else_lies_in_the_folder_goes(server, config, published, tmp_path):
    write_folder(RAW, {f"{IMAGES}.gz.0123abcd.part": b"partial", "notes.txt": b"old"})
    write_folder(RAW / "folder", {"file": b"old"})
    outside = tmp_path / "outside"
    write_folder(outside, {"kept": b"mine"})
    (RAW / "link").symlink_to(outside)
    fetch_from(config, server.offer("mnist", published))
    assert contents() == published
    assert contents(outside) == {"kept": b"mine"}


@pytest.mark.parametrize("present", ["good", "old"])
def test_a_bad_file_never_takes_the_place_of_another(server, config, published, present):
    there = published[IMAGES] if present == "good" else b"an older version"
    write_folder(RAW, {IMAGES: there})
    bad = {name: content[:-1] + b"\xff\xff" for name, content in published.items()}
    with pytest.raises(PipelineError):
        fetch_from(config, server.offer("mnist", bad))
    assert contents() == {IMAGES: there}


# Bad content


def test_another_content_is_refused_with_its_hash_and_the_next_mirror_is_asked(
    server, config, published, caplog
):
    caplog.set_level(logging.INFO)
    other = published | {LABELS: write_idx(np.zeros(60, np.uint8))}
    fetch_from(config, server.offer("bad", other), server.offer("good", published))
    assert contents() == published
    found = hashlib.sha256(other[LABELS]).hexdigest()[:8]
    assert f"/bad: {LABELS}: SHA-256 is {found}…, not {config.data.files[LABELS][:8]}…" in (
        caplog.text
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<!DOCTYPE html>", f"{IMAGES}: magic number 3c21444f is not that of an IDX file"),
        (b"\0\0\x08\x01\0\0\0\x05abc", rf"{IMAGES}: announces \(5,\) = 5 bytes of data, holds 3"),
    ],
    ids=["magic", "count"],
)
def test_what_is_no_idx_file_is_named_even_if_its_hash_is_configured(
    server, config, content, reason
):
    config.data.files[IMAGES] = hashlib.sha256(content).hexdigest()
    with pytest.raises(PipelineError, match=reason):
        fetch_from(config, server.offer("mnist", {IMAGES: content}))


def test_a_page_in_place_of_a_compressed_file_is_named(server, config):
    server.files[f"/{IMAGES}.gz"] = b"<!DOCTYPE html>"
    with pytest.raises(PipelineError, match=rf"{IMAGES}\.gz: Not a gzipped file"):
        fetch_from(config, server.url)


def test_a_broken_compressed_file_does_not_hide_the_plain_one(config, published, tmp_path):
    broken = gzip.compress(published[IMAGES])[:-20]
    fetch_from(config, write_folder(tmp_path / "own", published | {f"{IMAGES}.gz": broken}))
    assert contents() == published


# A network that misbehaves


def test_a_truncated_download_goes_on_where_it_stopped(server, config, published):
    mirror = server.offer("mnist", published)
    path = f"/mnist/{IMAGES}.gz"
    server.script[path] = [cut_off(30_000)]
    fetch_from(config, mirror)
    assert contents() == published
    assert server.ranges(path) == [None, "bytes=30000-"]
    assert server.sent[:2] == [30_000, len(server.files[path]) - 30_000]


def test_a_stalled_download_goes_on_where_it_stopped(server, config, published):
    mirror = server.offer("mnist", published)
    path = f"/mnist/{IMAGES}.gz"
    # What is less than a chunk is lost with the connection.
    server.script[path] = [stall(after=2 * download.CHUNK)]
    fetch_from(config, mirror)
    assert contents() == published
    assert server.ranges(path) == [None, f"bytes={2 * download.CHUNK}-"]


def test_an_unsteady_mirror_is_given_up_and_not_asked_for_the_next_file(
    server, config, published, caplog
):
    caplog.set_level(logging.INFO)
    bad, good = server.offer("bad", published), server.offer("good", published)
    server.script[f"/bad/{IMAGES}.gz"] = [stall(0)] * download.ATTEMPTS
    fetch_from(config, bad, good)
    assert contents() == published
    assert [path for path in server.paths if path.startswith("/bad")] == [
        f"/bad/{IMAGES}.gz"
    ] * download.ATTEMPTS
    assert "/bad: stalled for 0.3 s" in caplog.text


@pytest.mark.parametrize("code", [403, 404])
def test_a_refusal_is_final(server, config, code):
    server.script = {f"/{IMAGES}{end}": [status(code)] for end in (".gz", "")}
    with pytest.raises(PipelineError, match=rf"{IMAGES}\.gz: HTTP {code} "):
        fetch_from(config, server.url)
    assert server.paths.count(f"/{IMAGES}.gz") == 1


def test_redirects_that_lead_nowhere_are_a_refusal(server, config, published):
    bad, good = server.offer("bad", published), server.offer("good", published)
    server.script[f"/bad/{IMAGES}.gz"] = [redirect_to_itself] * 100
    fetch_from(config, bad, good)
    assert contents() == published
    assert f"/bad/{LABELS}.gz" in server.paths


@pytest.mark.parametrize("address", ["http://", "http://[bad", "http://a b/", "http://x:port/"])
def test_an_address_that_is_none_is_listed_like_any_other_failure(config, address):
    with pytest.raises(PipelineError, match=f"  {re.escape(address)}: "):
        fetch_from(config, address)


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_busy_server_is_asked_again(server, config, published, code):
    mirror = server.offer("mnist", published)
    server.script[f"/mnist/{IMAGES}.gz"] = [status(code), status(code)]
    fetch_from(config, mirror)
    assert contents() == published


@pytest.mark.parametrize("header", ["7", "date"])
def test_the_rest_that_a_server_asks_for_is_given(server, config, published, monkeypatch, header):
    pauses: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", pauses.append)
    if header == "date":
        header = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 8))
    mirror = server.offer("mnist", published)
    server.script[f"/mnist/{IMAGES}.gz"] = [status(503, Retry_After=header)]
    fetch_from(config, mirror)
    assert 6 < pauses[0] <= 8


def test_a_server_that_asks_for_a_long_rest_is_left_for_the_next(server, config, published):
    bad, good = server.offer("bad", published), server.offer("good", published)
    server.script[f"/bad/{IMAGES}.gz"] = [status(503, Retry_After="3600")]
    fetch_from(config, bad, good)
    assert contents() == published
    assert [path for path in server.paths if path.startswith("/bad")] == [f"/bad/{IMAGES}.gz"]


@pytest.mark.parametrize("behaviour", [ignore_range, status(416), other_range])
def test_without_a_fitting_range_the_file_is_fetched_whole(server, config, published, behaviour):
    mirror = server.offer("mnist", published)
    path = f"/mnist/{IMAGES}.gz"
    server.script[path] = [cut_off(30_000), behaviour]
    fetch_from(config, mirror)
    assert contents() == published
    assert server.sent[server.paths.index(f"/mnist/{LABELS}.gz") - 1] == len(server.files[path])


def test_a_partial_file_of_another_version_is_fetched_once_more_from_the_start(
    server, config, published
):
    mirror = server.offer("mnist", published)
    path = f"/mnist/{IMAGES}.gz"
    server.script[path] = [cut_off(30_000), *[status(503)] * (download.ATTEMPTS - 1)]
    with pytest.raises(PipelineError):
        fetch_from(config, mirror)
    server.offer("mnist", published, level=0)
    server.requests.clear()
    fetch_from(config, mirror)
    assert contents() == published
    assert server.ranges(path) == ["bytes=30000-", None]


def test_a_file_that_stays_bad_is_not_fetched_for_ever(server, config, published):
    mirror = server.offer("mnist", published | {IMAGES: b"bad" + published[IMAGES]})
    path = f"/mnist/{IMAGES}.gz"
    server.script[path] = [cut_off(30_000)]
    with pytest.raises(PipelineError):
        fetch_from(config, mirror)
    assert server.paths.count(path) == 3


def test_a_killed_download_is_completed_by_the_next(server, config, published, tmp_path):
    mirror = server.offer("mnist", published)
    path = f"/mnist/{IMAGES}.gz"
    half = 2 * download.CHUNK
    server.script[path] = [stall(after=half)]
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    hashes = [f"data.files.{name}={sha}" for name, sha in config.data.files.items()]
    command = [sys.executable, "-m", "pipeline.fetch", f"data.mirrors=[{mirror}]", *hashes]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 30
        while sum(part.stat().st_size for part in RAW.glob("*.part")) < half:
            assert time.monotonic() < deadline, "nothing arrives"
            time.sleep(0.01)
        process.kill()

    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert contents() == published
    assert server.ranges(path) == [None, f"bytes={half}-"]
    assert server.sent[1] == len(server.files[path]) - half
    lines = [f"{name}: from {mirror}" for name in published]
    assert again.stdout.splitlines() == [*lines, f"{RAW} is complete"]
    assert again.stderr == ""


def test_a_terminal_shows_progress(server, config, published, capsys, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    fetch_from(config, server.offer("mnist", published))
    assert f"{IMAGES}.gz" in capsys.readouterr().out


# Nothing works


def test_no_password_shows_in_log_or_message(config, caplog):
    caplog.set_level(logging.INFO)
    with pytest.raises(PipelineError) as failure:
        fetch_from(config, "http://user:secret@127.0.0.1:1/folder", "http://user:secret@[bad/")
    assert "trying again" in caplog.text
    assert "secret" not in caplog.text + str(failure.value)


def test_when_nothing_answers_the_message_lists_what_was_tried_and_the_way_out(
    server, config, published, monkeypatch
):
    monkeypatch.setenv("MNIST_MIRROR", "no/such/folder")
    mirrors = [
        f"{server.url}/empty",
        "http://127.0.0.1:1/refused/",
        "package:no_such_package",
    ]
    with pytest.raises(PipelineError) as failure:
        fetch_from(config, *mirrors)
    head, *tried, way_out = str(failure.value).splitlines()
    assert head == f"could not get {', '.join(published)}; tried"
    assert tried == [
        "  no/such/folder: no such folder",
        f"  {server.url}/empty: {IMAGES}.gz: HTTP 404 Not Found (and 3 more of these files failed)",
        "  http://127.0.0.1:1/refused/: Connection refused",
        "  package:no_such_package: no such package is installed",
    ]
    for hope in ("MNIST_MIRROR=<folder or URL>", "data=digits", "make demo"):
        assert hope in way_out


def test_other_data_is_not_referred_to_the_mirror_of_mnist():
    config = composed("digits")
    with pytest.raises(PipelineError, match=r"conf/data/digits\.yaml") as failure:
        fetch_from(config, "nowhere")
    assert "MNIST_MIRROR" not in str(failure.value)


def test_a_host_that_does_not_answer_is_asked_twice_in_all(server, config, monkeypatch):
    monkeypatch.setattr(download, "ANSWER_SECONDS", 0.05)
    server.script[f"/a/{IMAGES}.gz"] = [never_answer] * 9
    with pytest.raises(PipelineError) as failure:
        fetch_from(config, f"{server.url}/a", f"{server.url}/b/mnist.npz")
    assert server.paths == [f"/a/{IMAGES}.gz"] * download.CONNECT_ATTEMPTS
    assert str(failure.value).count("no answer within 0.05 s") == 2


def test_without_a_network_all_real_mirrors_are_given_up_in_half_a_minute(
    config, monkeypatch, tmp_path
):
    lookups, released = [], threading.Event()

    def hang(host: str, *args: object, **kwargs: object) -> list[object]:
        lookups.append(host)
        released.wait(60)
        return []

    monkeypatch.setattr("socket.getaddrinfo", hang)
    monkeypatch.setattr(download, "ANSWER_SECONDS", 0.02)
    started = time.monotonic()
    try:
        with pytest.raises(PipelineError, match="no answer within"):
            fetch_from(config, *composed("mnist").data.mirrors)
        assert time.monotonic() - started < 2
        pauses = 1.0 * len(lookups)  # half a second, and up to as much at random
        assert len(set(lookups)) > 1
        assert len(lookups) * ANSWER_SECONDS + pauses < 30
    finally:
        released.set()


def test_a_folder_that_cannot_be_written_is_named_with_the_fix(server, config, published):
    RAW.parent.mkdir(parents=True)
    RAW.write_bytes(b"a file in its place")
    with pytest.raises(PipelineError) as failure:
        fetch_from(config, server.offer("mnist", published))
    assert str(RAW.absolute()) in str(failure.value)
    assert "It must be a folder that you may write to" in str(failure.value)


def test_a_full_disk_is_told_apart_from_a_bad_mirror(server, config, published, monkeypatch):
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.storage.files.os.replace", full)
    with pytest.raises(PipelineError, match="No space left on device"):
        fetch_from(config, server.offer("mnist", published))
