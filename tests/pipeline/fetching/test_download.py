"""Downloads from a web server on the loopback, which misbehaves as its script says."""

import gzip
import hashlib
import io
import re
import sys
import threading
import time
import zipfile
from concurrent.futures import wait
from pathlib import Path

import numpy as np
import pooch
import pytest
from support.web_server import Handler, serving

from pipeline.archives.packing import pack
from pipeline.fetching import download
from pipeline.fetching.download import MirrorError, complete
from pipeline.storage.idx import write_idx

KERAS = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}
IMAGES, LABELS, TEST_IMAGES, TEST_LABELS = KERAS.values()
RANDOM = np.random.default_rng(0)
# Noise in the shape of MNIST: it hardly compresses.
ARRAYS = {
    "x_train": RANDOM.integers(0, 256, (60, 28, 28), np.uint8),
    "y_train": RANDOM.integers(0, 10, 60, np.uint8),
    "x_test": RANDOM.integers(0, 256, (20, 28, 28), np.uint8),
    "y_test": RANDOM.integers(0, 10, 20, np.uint8),
}
PUBLISHED = {KERAS[key]: write_idx(array) for key, array in ARRAYS.items()}
HASHES = {name: hashlib.sha256(content).hexdigest() for name, content in PUBLISHED.items()}


class Mirror:
    """Serves `files`; the answers that `script` has for a path come first."""

    def __init__(self):
        self.files, self.script, self.paths = {}, {}, []
        self.stalling = threading.Event()
        self.released = threading.Event()  # ends what stalls
        mirror = self

        class Files(Handler):
            def respond(self):
                self.mirror = mirror
                mirror.paths.append(self.path)
                content = mirror.files.get(self.path)
                if script := mirror.script.get(self.path):
                    script.pop(0)(self, content or b"")
                elif content is None:
                    self.send_error(404)
                else:
                    self.answer(200, content)

        self.handler = Files

    def offer(self, folder, files):
        for name, content in files.items():
            self.files[f"/{folder}/{name}.gz"] = gzip.compress(content, mtime=0)
        return f"{self.url}/{folder}"


def status(code):
    return lambda handler, _: handler.answer(code, b"no")


def cut_off(handler, content):
    handler.answer(200, content[:1000], Content_Length=str(len(content)))


def never_answer(handler, content):
    handler.mirror.stalling.set()
    handler.mirror.released.wait(60)


def stall(handler, content):
    cut_off(handler, content)
    never_answer(handler, content)


def compress_if_accepted(handler, content):
    if "gzip" in handler.headers.get("Accept-Encoding", ""):
        handler.answer(200, gzip.compress(content), Content_Encoding="gzip")
    else:
        handler.answer(200, content)


@pytest.fixture
def server():
    mirror = Mirror()
    with serving(mirror.handler) as server:
        server.handle_error = lambda *_: None  # of a client that hangs up
        mirror.url = server.url
        yield mirror
        mirror.released.set()


@pytest.fixture(autouse=True)
def raw(tmp_path, monkeypatch):
    """An empty folder for the files, no proxy, and no pause before pooch tries again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(pooch.core, "time", type("NoPause", (), {"sleep": lambda seconds: None}))
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write_folder(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return str(folder)


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


# Kinds of mirrors


def test_compressed_files_of_a_web_folder_are_decompressed(server, raw):
    complete(raw, HASHES, [server.offer("mnist", PUBLISHED) + "/"])
    assert contents(raw) == PUBLISHED
    assert {path.stat().st_mode & 0o777 for path in raw.iterdir()} == {0o644}


@pytest.mark.parametrize("script", [None, compress_if_accepted])
def test_plain_files_are_taken_where_none_are_compressed(server, raw, script):
    server.files = {f"/{name}": content for name, content in PUBLISHED.items()}
    server.script = {f"/{name}": [script] for name in PUBLISHED if script}
    complete(raw, HASHES, [server.url])
    assert contents(raw) == PUBLISHED
    assert server.paths[:2] == [f"/{IMAGES}.gz", f"/{IMAGES}"]


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_mirror_may_be_a_folder_beside_the_true_root(raw, tmp_path, monkeypatch, prefix):
    """DVC's experiments run in a temporary copy, from which a relative path leads elsewhere."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "repository"))
    write_folder(tmp_path / "repository", {})
    folder = write_folder(tmp_path / "shared/mnist", PUBLISHED)
    complete(raw, HASHES, [prefix + folder if prefix else "../shared/mnist"])
    assert contents(raw) == PUBLISHED


@pytest.mark.parametrize("place", ["web", "relative", "absolute"])
def test_keras_archive_is_fetched_once_and_gives_the_published_bytes(server, raw, tmp_path, place):
    server.files["/mnist.npz"] = npz(**ARRAYS)
    (tmp_path / "mnist.npz").write_bytes(npz(**ARRAYS))
    mirror = {"web": server.url, "relative": ".", "absolute": tmp_path}[place]
    complete(raw, HASHES, [f"{mirror}/mnist.npz"])
    assert contents(raw) == PUBLISHED
    assert server.paths == (["/mnist.npz"] if place == "web" else [])


@pytest.mark.parametrize(
    "content",
    [b"PK\3\4 and so on", b"", npz(a=np.zeros(3)), npz(**{k: np.array([{}]) for k in KERAS})],
    ids=["zip", "nothing", "other arrays", "pickled objects"],
)
def test_another_archive_is_refused_after_one_download(server, raw, content):
    server.files["/mnist.npz"] = content
    with pytest.raises(MirrorError, match=r"not Keras' mnist\.npz"):
        complete(raw, HASHES, [f"{server.url}/mnist.npz"])
    assert server.paths == ["/mnist.npz"]


# What is there already


def test_files_that_are_right_are_neither_fetched_nor_written(server, raw):
    mirror = server.offer("mnist", PUBLISHED)
    write_folder(raw, PUBLISHED | {LABELS: b"damaged"})
    before = {path.name: path.stat().st_mtime_ns for path in raw.iterdir()}
    complete(raw, HASHES, [mirror])
    assert contents(raw) == PUBLISHED
    assert server.paths == [f"/mnist/{LABELS}.gz"]
    changed = {path.name for path in raw.iterdir() if path.stat().st_mtime_ns != before[path.name]}
    assert changed == {LABELS}


def test_mirrors_are_asked_in_order_and_only_for_what_is_missing(server, raw):
    first = server.offer("first", {IMAGES: PUBLISHED[IMAGES]})
    second = server.offer("second", PUBLISHED)
    complete(raw, HASHES, [first, second, f"{server.url}/third"])
    assert contents(raw) == PUBLISHED
    assert f"/second/{IMAGES}.gz" not in server.paths
    assert not [path for path in server.paths if path.startswith("/third")]


def test_a_file_with_another_hash_is_refused_and_the_next_mirror_is_asked(server, raw, caplog):
    caplog.set_level("INFO")
    write_folder(raw, {LABELS: b"an older version"})
    bad = server.offer("bad", PUBLISHED | {LABELS: write_idx(np.zeros(60, np.uint8))})
    with pytest.raises(MirrorError, match=rf"/bad: .*{LABELS}.* expected {HASHES[LABELS]}"):
        complete(raw, HASHES, [bad])
    assert contents(raw) == PUBLISHED | {LABELS: b"an older version"}, "nor a temporary file"
    assert server.paths.count(f"/bad/{LABELS}.gz") == 1 + download.RETRIES
    complete(raw, HASHES, [bad, server.offer("good", PUBLISHED)])
    assert contents(raw) == PUBLISHED
    assert len([line for line in caplog.messages if "/bad: " in line]) == 1


# A network that misbehaves


@pytest.mark.parametrize("failure", [cut_off, status(429), status(500), status(503)])
def test_what_may_pass_is_tried_again(server, raw, failure):
    mirror = server.offer("mnist", PUBLISHED)
    server.script[f"/mnist/{IMAGES}.gz"] = [failure] * download.RETRIES
    complete(raw, HASHES, [mirror])
    assert contents(raw) == PUBLISHED


@pytest.mark.parametrize(
    ("failure", "times"), [(status(503), 1 + download.RETRIES), (stall, 1), (never_answer, 1)]
)
def test_a_mirror_that_does_not_deliver_is_left_for_the_next(
    server, raw, monkeypatch, failure, times
):
    silent = []  # whose time is up, however slow the host

    def wait_until_it_stalls(futures, seconds):
        while futures[0] not in silent and not futures[0].done():
            if server.stalling.wait(0.001):
                server.stalling.clear()
                silent.append(futures[0])
        return wait(futures, 0)

    monkeypatch.setattr(download, "wait", wait_until_it_stalls)
    bad, good = server.offer("bad", PUBLISHED), server.offer("good", PUBLISHED)
    server.script[f"/bad/{IMAGES}.gz"] = [failure] * 9
    complete(raw, HASHES, [bad, good])
    assert contents(raw) == PUBLISHED
    bad_paths = [path for path in server.paths if path.startswith("/bad")]
    assert bad_paths == [f"/bad/{IMAGES}.gz"] * times


@pytest.mark.parametrize("code", [403, 404])
def test_a_refusal_is_final(server, raw, code):
    server.script = {f"/{IMAGES}{end}": [status(code)] for end in (".gz", "")}
    with pytest.raises(MirrorError, match=rf"{IMAGES}: HTTP {code} "):
        complete(raw, HASHES, [server.url])
    assert server.paths.count(f"/{IMAGES}.gz") == 1


def test_without_a_network_the_public_mirrors_are_given_up_in_half_a_minute(
    raw, monkeypatch, configured
):
    """The look-up of a name may hang for longer than any timeout of requests."""
    released = threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: released.wait(60) and [])
    mirrors = [place for place in configured(1).data.mirrors if place.startswith("https:")]
    assert len(mirrors) * download.SILENT_SECONDS <= 30
    monkeypatch.setattr(download, "SILENT_SECONDS", 0.1)
    started = time.monotonic()
    try:
        with pytest.raises(MirrorError) as failure:
            complete(raw, HASHES, mirrors)
    finally:
        released.set()
    assert str(failure.value).count("no byte within 0.1 s") == len(mirrors)
    assert time.monotonic() - started < 30


def test_a_terminal_shows_progress(server, raw, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    complete(raw, HASHES, [server.offer("mnist", PUBLISHED)])
    assert "100%" in capsys.readouterr().err


# Messages


def test_the_error_lists_each_mirror_with_its_reason(server, raw, tmp_path):
    server.files[f"/page/{IMAGES}.gz"] = b"<!DOCTYPE html>"
    circle = f"/circle/{IMAGES}.gz"
    server.script[circle] = [lambda handler, _: handler.answer(302, b"", Location=circle)] * 99
    mirrors = {
        "no/such/folder": "no such folder",
        "http://nowhere.invalid/": "[A-Z][a-z ]+$",  # the system's words for a failed look-up
        f"{server.url}/empty": rf"{IMAGES}: HTTP 404 Not Found.* \(and 3 more of these",
        f"{server.url}/page": rf"{IMAGES}\.gz: Not a gzipped file",
        f"{server.url}/circle": "Exceeded 30 redirects",
        "http://127.0.0.1:1/refused/": "Connection refused",
        "http://[bad": "Failed to parse",
        "http://": "Invalid URL",
        "package:no_such_package": "no such package is installed",
    }
    with pytest.raises(MirrorError) as failure:
        complete(raw, HASHES, mirrors)
    head, *tried = str(failure.value).splitlines()
    assert head == f"could not get {', '.join(PUBLISHED)}; tried"
    for line, (place, reason) in zip(tried, mirrors.items(), strict=True):
        assert re.match(rf"  {re.escape(place)}: .*{reason}", line), line


def test_no_password_shows_in_log_or_message(server, raw, caplog, capfd):
    caplog.set_level("DEBUG")
    host = server.url.removeprefix("http://")
    places = (f"{host}/empty", "127.0.0.1:1/refused", "[bad/")
    with pytest.raises(MirrorError) as failure:
        complete(raw, HASHES, [f"http://user:secret@{place}" for place in places])
    server.offer("mnist", PUBLISHED)
    complete(raw, HASHES, [f"http://user:secret@{host}/mnist"])
    printed = "".join(capfd.readouterr())
    assert f"from {server.url}/mnist" in caplog.text
    assert "secret" not in caplog.text + printed + str(failure.value)


# Archives and folders of pictures

PICTURES = {"a/1.png": b"one", "b/2.png": b"two"}


def digest(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def packed(tmp_path):
    """A folder of pictures; returns the zip of it."""
    for name, content in PICTURES.items():
        write_folder((tmp_path / "mine" / name).parent, {Path(name).name: content})
    pack(tmp_path / "mine", tmp_path / "packed.zip")
    return (tmp_path / "packed.zip").read_bytes()


@pytest.mark.parametrize("absolute", [False, True])
def test_a_folder_of_pictures_is_packed_so_that_one_hash_names_it(packed, raw, absolute):
    place = str(raw.parent / "mine") if absolute else "mine"
    complete(raw, {"mine.zip": digest(packed)}, [place])
    assert contents(raw) == {"mine.zip": packed}
    with zipfile.ZipFile(raw / "mine.zip") as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == PICTURES


def test_a_folder_that_holds_the_archive_is_not_packed(packed, raw):
    (raw.parent / "mine" / "mine.zip").write_bytes(packed)
    complete(raw, {"mine.zip": digest(packed)}, ["mine"])
    assert contents(raw) == {"mine.zip": packed}


def test_a_folder_whose_pictures_have_changed_is_refused(packed, raw):
    (raw.parent / "mine" / "a" / "3.png").write_bytes(b"three")
    with pytest.raises(MirrorError, match=r"mine: SHA256 hash"):
        complete(raw, {"mine.zip": digest(packed)}, ["mine"])
    assert contents(raw) == {}


@pytest.mark.parametrize("ending", ["zip", "tar.gz", "tgz", "npz", "csv"])
def test_a_mirror_may_be_the_file_itself_by_path_or_url(server, raw, ending):
    content = gzip.compress(b"as it is")
    (raw.parent / f"other.{ending}").write_bytes(content)
    server.files[f"/x/other.{ending}"] = content
    for place in (f"other.{ending}", f"{server.url}/x/other.{ending}"):
        complete(raw, {f"mine.{ending}": digest(content)}, [place])
        assert (raw / f"mine.{ending}").read_bytes() == content
        (raw / f"mine.{ending}").unlink()
    assert server.paths == [f"/x/other.{ending}"]


def test_what_is_published_compressed_and_hashed_so_stays_compressed(server, raw):
    content = gzip.compress(b"as it is")
    server.files["/x/a.gz"] = content
    complete(raw, {"a.gz": digest(content)}, [f"{server.url}/x"])
    assert contents(raw) == {"a.gz": content}
    assert server.paths == ["/x/a.gz"]
