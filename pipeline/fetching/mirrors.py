"""Where published files can be had: a folder, a package, a web folder, or Keras' `mnist.npz`."""

from __future__ import annotations

import gzip
import hashlib
import io
import logging
import zlib
from collections.abc import Callable
from functools import partial
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TypeVar
from zipfile import BadZipFile

import numpy as np

from pipeline.config import environment
from pipeline.data.dataset import write_idx
from pipeline.fetching.download import DownloadError, UnreachableError, UnsteadyError, download

log = logging.getLogger(__name__)

_KERAS = {
    "train-images-idx3-ubyte": "x_train",
    "train-labels-idx1-ubyte": "y_train",
    "t10k-images-idx3-ubyte": "x_test",
    "t10k-labels-idx1-ubyte": "y_test",
}

T = TypeVar("T")
Check = Callable[[bytes], bytes]
"""Returns the decompressed content of a file, or raises MirrorError if it is not the right one."""
Mirror = Callable[[str, Check], bytes]
"""Checked content of the file of a name; MirrorError if the mirror does not have it."""


class MirrorError(Exception):
    """Why a mirror does not give a file, in a few words."""


class AbsentError(MirrorError):
    """The file is not there, which says less than that it is bad."""


class Web:
    """Checked downloads; remembers what does not answer, so as to wait for it only once."""

    def __init__(self, folder: Path) -> None:
        """`folder`: for partial downloads, which the next process may resume."""
        self._folder = folder
        self._given_up: dict[str, str] = {}  # beginning of addresses: why

    def get(self, url: str, check: Callable[[bytes], T]) -> T:
        """What `check` makes of the bytes at `url`.

        What was there of a partial download may be another version's: if the whole then fails the
        check, it is fetched once more from the start.
        """
        # Each mirror compresses differently, so the name tells whose part it is.
        address = hashlib.sha256(url.encode()).hexdigest()
        part = self._folder / f"{_name(url)}.{address[:8]}.part"
        if self._download(url, part):
            try:
                return _used_up(part, check)
            except MirrorError:
                log.info("  %s was resumed and is bad: from the start again", _name(url))
                self._download(url, part)
        return _used_up(part, check)

    def _download(self, url: str, part: Path) -> bool:
        for beginning, reason in self._given_up.items():
            if url.startswith(beginning):
                raise MirrorError(reason)
        try:
            return download(url, part)
        except UnreachableError as error:
            host = "/".join(url.split("/")[:3]) + "/"
            folder = url.removesuffix(_name(url))
            self._given_up[folder if isinstance(error, UnsteadyError) else host] = str(error)
            raise MirrorError(str(error)) from None
        except DownloadError as error:
            raise AbsentError(f"{_name(url)}: {error}") from None


def _name(url: str) -> str:
    return url.rpartition("/")[2]


def _used_up(part: Path, check: Callable[[bytes], T]) -> T:
    try:
        return check(part.read_bytes())
    finally:
        part.unlink()


def opened(place: str, web: Web) -> Mirror:
    """The mirror at a place: `package:<name>`, or path or URL of a folder or of Keras' `.npz`.

    Raises:
        MirrorError: none of its files can be had.
    """
    if place.startswith(("http://", "https://")):
        if place.endswith(".npz"):
            return partial(_member, web.get(place, _keras))
        url = place.rstrip("/")
        return partial(_either, lambda file, check: web.get(f"{url}/{file}", check))
    if place.startswith("package:"):
        return _folder(_package(place.removeprefix("package:")))
    path = environment.root() / Path(place.removeprefix("file://")).expanduser()
    if path.suffix == ".npz":
        return partial(_member, _keras(_read(path)))
    try:
        there = path.is_dir()
    except OSError as error:
        raise MirrorError(str(error.strerror)) from error
    if not there:
        raise MirrorError("no such folder")
    return _folder(path)


def _folder(folder: Traversable) -> Mirror:
    return partial(_either, lambda file, check: check(_read(folder / file)))


def _member(files: dict[str, bytes], name: str, check: Check) -> bytes:
    if name not in files:
        raise AbsentError(f"no {name} in it")
    return check(files[name])


def _either(take: Callable[[str, Check], bytes], name: str, check: Check) -> bytes:
    """The file compressed or, failing that, plain; else the error that tells more."""
    try:
        return take(f"{name}.gz", lambda content: check(_gunzipped(content, name)))
    except MirrorError as error:
        compressed = error
    try:
        return take(name, check)
    except AbsentError:
        raise compressed from None


def _gunzipped(content: bytes, name: str) -> bytes:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise MirrorError(f"{name}.gz: {error}") from None


def _read(file: Traversable) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise AbsentError(f"no {file.name}") from None
    except OSError as error:
        raise MirrorError(f"{file.name}: {error.strerror}") from None


def _package(name: str) -> Traversable:
    try:
        return resources.files(name)
    except ModuleNotFoundError:
        raise MirrorError("no such package is installed") from None


def _keras(content: bytes) -> dict[str, bytes]:
    """The published files, made again from the arrays of Keras' `mnist.npz`."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {name: write_idx(arrays[array]) for name, array in _KERAS.items()}
    except (ValueError, TypeError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise MirrorError(f"not Keras' mnist.npz: {error}") from None
