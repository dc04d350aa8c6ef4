"""Published files from mirrors, each checked by the SHA-256 of its decompressed bytes.

A mirror is a folder, a web folder, Keras' `mnist.npz` (path or URL), or `package:<name>`. It may
also be the path or URL of the file itself, whatever its name is there. A folder without the file is
packed, if that is a zip.
"""

import gzip
import io
import logging
import re
import shutil
import sys
import threading
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, wait
from functools import partial
from importlib import resources
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pooch
import requests

from pipeline.archives import packing, sources
from pipeline.config import environment
from pipeline.storage.files import sha256
from pipeline.storage.idx import write_idx

log = logging.getLogger(__name__)

RETRIES = 1  # after a broken connection, a busy server or a wrong hash; pooch waits 1 s before it
# The longest time without a byte: name look-up, handshakes and headers included. Without a network
# the three public mirrors of MNIST are given up in half a minute.
SILENT_SECONDS = 10.0

_WEB = ("http://", "https://")
_PACKED = (".gz", ".npz", *sources.ENDINGS)  # as published: not compressed once more
_FILES = (".csv", ".npz", *sources.ENDINGS)  # by which a URL is told from a web folder
_KERAS = {
    "train-images-idx3-ubyte": "x_train",
    "train-labels-idx1-ubyte": "y_train",
    "t10k-images-idx3-ubyte": "x_test",
    "t10k-labels-idx1-ubyte": "y_test",
}


class MirrorError(Exception):
    """A mirror is of no use; says why in a few words."""


class FileError(MirrorError):
    """A mirror lacks one of the files, or has a bad one; the others may be right."""


def complete(folder: Path, files: Mapping[str, str], mirrors: Iterable[str]) -> None:
    """Fetch the files that are missing or wrong, each from the first mirror that has it.

    `files`: names, with the SHA-256 of the decompressed bytes. If no mirror has one of them, a
    MirrorError has a line for each mirror. It is an OSError if the folder cannot be written.
    """
    wanted = [name for name, digest in files.items() if not _is_right(folder / name, digest)]
    tried = []
    for place in mirrors:
        if not wanted:
            break
        failed = _fetch(folder, {name: files[name] for name in wanted}, place)
        wanted = list(failed)
        if failed:
            reason, *others = dict.fromkeys(failed.values())
            more = f" (and {len(failed) - 1} more of these files failed)" if others else ""
            tried.append(without_password(f"{place}: {reason}{more}"))
    if wanted:
        raise MirrorError("\n  ".join([f"could not get {', '.join(wanted)}; tried", *tried]))
    for line in tried:
        log.info("%s", line)


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
    keras = place.endswith(".npz") and set(files) <= set(_KERAS)
    copy = partial(_copy_of_keras, {}) if keras else _copy

    def write(name: str, url: str, file: str, mirror: object) -> None:
        """Be a downloader of pooch, which then checks the hash of `file` and gives it its name."""
        copy(place, name, Path(file))

    failed: dict[str, str] = {}
    names = list(files)
    for number, name in enumerate(names):
        try:
            file = mirror.fetch(name, downloader=partial(write, name))
        except FileError as error:
            failed[name] = str(error)
        except MirrorError as error:
            return failed | dict.fromkeys(names[number:], str(error))
        except requests.RequestException as error:
            return failed | dict.fromkeys(names[number:], _cause(error))
        except ValueError as error:  # pooch found another hash
            failed[name] = str(error).partition(". Deleted")[0]
        else:
            Path(file).chmod(0o644)  # pooch's temporary files are for their owner alone
            log.info("%s: from %s", name, without_password(place))
    return failed


def _copy(place: str, name: str, target: Path) -> None:
    """Write the file of a mirror, decompressed."""
    local = None if place.startswith((*_WEB, "package:")) else _local(place)
    if local and local.is_file():
        shutil.copyfile(local, target)
    elif place.startswith(_WEB) and place.lower().endswith(_FILES):
        target.write_bytes(_download(place))
    elif local and local.is_dir() and name.endswith(".zip") and not (local / name).exists():
        packing.pack(local, target)
    else:
        target.write_bytes(_file(place, name))


def _local(place: str) -> Path:
    return environment.root() / Path(place.removeprefix("file://")).expanduser()


def _file(place: str, name: str) -> bytes:
    """Return the file decompressed, or the plain one where there is no compressed one."""
    if name.endswith(_PACKED):
        return _read(place, name)
    try:
        compressed = _read(place, f"{name}.gz")
    except FileError:
        return _read(place, name)
    try:
        return gzip.decompress(compressed)
    except (OSError, EOFError, zlib.error) as error:
        raise FileError(f"{name}.gz: {error}") from None


def _copy_of_keras(files: dict[str, bytes], place: str, name: str, target: Path) -> None:
    target.write_bytes(_keras_file(files, place, name))


def _keras_file(files: dict[str, bytes], place: str, name: str) -> bytes:
    """Return the published file of an array in Keras' `mnist.npz`, which is read once to `files`.

    It is a MirrorError if the archive is missing or another one.
    """
    archive = re.split(r"[/:]", place)[-1]
    try:
        if not files:
            content = _read(place.removesuffix(archive), archive)
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                files |= {n: write_idx(arrays[array]) for n, array in _KERAS.items()}
        return files[name]
    except FileError as error:
        raise MirrorError(str(error)) from None
    except (ValueError, TypeError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise MirrorError(f"not Keras' mnist.npz: {error}") from None


def _read(place: str, name: str) -> bytes:
    """Return the file of a mirror as it is there."""
    if place.startswith(_WEB):
        return _download(f"{place.rstrip('/')}/{name}")
    try:
        package = place.startswith("package:")
        folder = resources.files(place.removeprefix("package:")) if package else _local(place)
        if not folder.is_dir():
            raise MirrorError("no such folder")
        return (folder / name).read_bytes()
    except ModuleNotFoundError:
        raise MirrorError("no such package is installed") from None
    except OSError as error:
        raise FileError(f"{name}: {error.strerror}") from None


def _download(url: str) -> bytes:
    """Return what is at the URL, unless no byte comes; of the errors, pooch retries requests'.

    The timeout of requests does not cover the name look-up, and begins anew for each address of
    the host: storage.googleapis.com has sixteen. So a thread downloads, and is left to itself.
    """
    get = pooch.HTTPDownloader(
        progressbar=sys.stderr.isatty(),
        timeout=2 * SILENT_SECONDS,
        headers={"Accept-Encoding": "identity"},
    )
    content, answer = io.BytesIO(), Future[None]()

    def run() -> None:
        try:
            get(url, content, None)
            answer.set_result(None)
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    size = 0
    while not wait([answer], SILENT_SECONDS).done:
        before, size = size, content.tell()
        if size == before:
            raise MirrorError(f"no byte within {SILENT_SECONDS:g} s")
    try:
        answer.result()
    except requests.HTTPError as error:
        error.response.close()
        if error.response.status_code in (requests.codes.too_many_requests, *range(500, 600)):
            raise
        raise FileError(f"{url.rpartition('/')[2]}: {_cause(error)}") from None
    return content.getvalue()


def _cause(error: BaseException) -> str:
    """Return the reason in a few words: that of the innermost error, such as a failed look-up."""
    if isinstance(error, requests.HTTPError):
        return f"HTTP {error.response.status_code} {error.response.reason}"
    while inner := error.__cause__ or error.__context__:
        error = inner
    return str(getattr(error, "strerror", None) or error)
