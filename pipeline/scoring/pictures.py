"""Pictures of a folder or a zip: their names, their labels, and the model's input of each."""

import lzma
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from mimetypes import guess_type
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from pipeline.config import PipelineError
from pipeline.data.dataset import Images
from serve.decoding.decode import normalise_file, read_file
from serve.imaging.errors import ImageError
from serve.settings import Settings

Read = Callable[[str], bytes | str]  # a picture's name to its content, or why there is none

LIMITS = Settings.model_construct()  # the service's defaults; reads no environment

_DEEPEST = 60  # folders
_CHUNK = 64  # pictures at a time: more make no call of the model faster
# A zip that unpacks to more than this and to so many times its size is no zip of pictures.
_BOMB_BYTES, _BOMB_RATIO = 2**30, 200
_OF_THE_SYSTEM = {"__MACOSX", "Thumbs.db", "desktop.ini"}
# What `zipfile` raises for what is broken, encrypted, or packed in a way that it does not know.
_UNREADABLE = (
    *(OSError, RuntimeError, ValueError, EOFError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)


def named(sources: Sequence[Path]) -> dict[str, Path]:
    """Return the sources by name: the end of the path, as long as no two are the same.

    It is a PipelineError if a source is given twice.
    """
    paths = [source.resolve() for source in sources]
    for source, path in zip(sources, paths, strict=True):
        if paths.count(path) > 1:
            raise PipelineError(f"{source} is given twice: name each folder or .zip once")
    found = {}
    for source, path in zip(sources, paths, strict=True):
        ends = (path.parts[-length:] for length in range(1, len(path.parts) + 1))
        end = next(end for end in ends if sum(p.parts[-len(end) :] == end for p in paths) == 1)
        found[shown(str(Path(*end)))] = source
    return found


@contextmanager
def opened(source: Path) -> Iterator[tuple[list[str], Read]]:
    """Yield the sorted names of the pictures in a folder or a zip, and what reads one.

    It is a PipelineError if there is no picture, or the zip is broken or not to be trusted.
    """
    if source.is_dir():
        yield _some(_files(source), source), lambda name: content(source, name)
        return
    try:
        archive = zipfile.ZipFile(source)
    except FileNotFoundError:
        raise PipelineError(f"{source} does not exist: name a folder or a .zip") from None
    except _UNREADABLE as error:
        raise PipelineError(
            f"{source} is no sound zip ({error}): name a folder, or zip it again"
        ) from error
    with archive:
        _check(archive, source)
        names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
        yield _some(dict.fromkeys(names), source), lambda name: content(archive, name)


def _files(folder: Path) -> Iterator[str]:
    for top, _, files in os.walk(folder, onerror=_refuse, followlinks=True):
        if len(Path(top).parts) > _DEEPEST:
            raise PipelineError(f"{top} is too deep, perhaps by a link to a folder above it")
        paths = (Path(top, file) for file in files)
        yield from (str(path.relative_to(folder)) for path in paths if path.is_file())


def _refuse(error: OSError) -> None:
    raise PipelineError(f"{error.filename}: {error.strerror}: let this user read it, or remove it")


def _check(archive: zipfile.ZipFile, source: Path) -> None:
    """Refuse a zip bomb, and names that are outside of the zip: nobody makes them by accident."""
    entries = archive.infolist()
    for entry in entries:
        parts = _parts(entry.filename)
        outside = entry.filename[:1] in ("/", "\\") or (parts[:1] and parts[0].endswith(":"))
        if outside or ".." in parts:
            raise PipelineError(
                f"{source} has a name outside of it, {shown(entry.filename)}: zip the folder again"
            )
    total, size = sum(entry.file_size for entry in entries), source.stat().st_size
    if total > max(_BOMB_BYTES, _BOMB_RATIO * size):
        raise PipelineError(
            f"{source} unpacks to {total / 1e9:,.1f} GB, {total // size:,} times its size, as a zip"
            " bomb does: unpack it yourself and name the folder"
        )


def _some(names: Iterator[str] | dict[str, None], source: Path) -> list[str]:
    """Return the names of pictures, sorted; a file whose ending is not a picture's is left out."""
    found = sorted(name for name in names if _is_picture(name))
    if not found:
        raise PipelineError(
            f"{source} has no pictures: name a folder or .zip of files such as .png or .jpg"
        )
    return found


def _is_picture(name: str) -> bool:
    parts = _parts(name)
    if any(part.startswith(".") or part in _OF_THE_SYSTEM for part in parts):
        return False
    return _may_be_picture(PurePosixPath(parts[-1]).suffix.lower())


@cache
def _may_be_picture(suffix: str) -> bool:
    kind, packed = guess_type(f"a{suffix}", strict=False)
    if kind or packed:
        return not packed and str(kind).startswith("image/")
    return not suffix or suffix in Image.registered_extensions()


def _parts(name: str) -> list[str]:
    return [part for part in name.replace("\\", "/").split("/") if part != "."]


def shown(name: str) -> str:
    r"""Return the name as text; what cannot be printed is written as in Python, such as `\xff`."""
    text = os.fsencode(name).decode(errors="backslashreplace")
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def labels(names: Sequence[str], classes: Sequence[str]) -> list[int]:
    """Return the place of each picture's class in `classes`, by its folder; -1 if it has none.

    The folders of the classes may be in one top folder.
    """
    places = {name: place for place, name in enumerate(classes)}
    folders = [_parts(name)[:-1] for name in names]
    while True:
        tops = [folder[0] if folder else "" for folder in folders]
        below = set(tops) - {""}
        if len(below) != 1 or below <= set(classes):
            return [places.get(top, -1) for top in tops]
        folders = [folder[1:] for folder in folders]


def content(source: Path | zipfile.ZipFile, name: str) -> bytes | str:
    """Return the content of a file in a folder or a zip, or why there is none."""
    most = LIMITS.max_image_bytes
    try:
        file = (source / name).open("rb") if isinstance(source, Path) else source.open(name)
        with file:
            found = file.read(most + 1)
    except _UNREADABLE as error:
        reason = error.strerror if isinstance(error, OSError) else ""
        return reason or str(error) or "the file is cut off"
    return found if len(found) <= most else f"more than {most:,} bytes"


def inputs(names: Sequence[str], read: Read) -> Iterator[list[Images | str]]:
    """Yield the models' inputs, (28, 28) each, or why there is none: in order, some at a time.

    In one thread: more threads would wait for each other, and on two busy cores two processes read
    12,000 pictures no faster than one.
    """
    for start in range(0, len(names), _CHUNK):
        yield [_input(read(name)) for name in names[start : start + _CHUNK]]


def _input(content: bytes | str) -> Images | str:
    if isinstance(content, str):
        return content
    try:
        return normalise_file(content, max_pixels=LIMITS.max_image_pixels)
    except ImageError as error:
        return str(error)


def both(content: bytes, side: int) -> tuple[Images, Images]:
    """Return a picture as decoded, reduced to `side` pixels, and the model's input of it."""
    reading = read_file(content, max_pixels=LIMITS.max_image_pixels)
    picture = Image.fromarray(reading.pixels)
    picture.thumbnail((side, side))
    return np.asarray(picture), reading.normalised.image
