"""What reads the pictures of a folder, a zip or a tar; nothing is ever unpacked to the disk."""

import lzma
import os
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from mimetypes import guess_type
from pathlib import Path, PurePosixPath
from typing import IO

from PIL import Image

from pipeline.config import PipelineError

Read = Callable[[str], bytes | str]  # a file's name to its content, or why there is none

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
ENDINGS = (".zip", *TARS)

_DEEPEST = 60  # folders
# An archive that unpacks to more than this and to so many times its size is none of pictures.
_BOMB_BYTES, _BOMB_RATIO = 2**30, 200
_OF_THE_SYSTEM = {"__MACOSX", "Thumbs.db", "desktop.ini"}
# What is raised for what is missing, broken, encrypted, or packed in a way that is not known.
_UNREADABLE = (
    *(OSError, RuntimeError, ValueError, EOFError, KeyError),
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError),
)


@contextmanager
def opened(source: Path, most: int) -> Iterator[tuple[list[str], Read]]:
    """Yield the sorted names of the pictures in a folder or an archive, and what reads one.

    `most`: bytes of a file. It is a PipelineError if there is no picture, or the archive is broken
    or not to be trusted.
    """
    if source.is_dir():
        yield _some(files(source), source), partial(content, source, most=most)
        return
    is_tar = source.name.lower().endswith(TARS)
    with _tar(source) if is_tar else _zip(source) as (names, open_member):
        yield _some(names, source), partial(_content, open_member, most=most)


def content(folder: Path, name: str, *, most: int) -> bytes | str:
    """Return the content of a file in a folder, or why there is none."""
    return _content(lambda name: (folder / name).open("rb"), name, most=most)


def shown(name: str) -> str:
    r"""Return the name as text; what cannot be printed is written as in Python, such as `\xff`."""
    text = os.fsencode(name).decode(errors="backslashreplace")
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def parts(name: str) -> list[str]:
    """Return the folders and the file of a name in an archive."""
    return [part for part in name.replace("\\", "/").split("/") if part != "."]


def files(folder: Path) -> Iterator[str]:
    """Yield the names of all files in a folder, also behind links.

    It is a PipelineError if a part of it cannot be read.
    """
    for top, _, names in os.walk(folder, onerror=_refuse, followlinks=True):
        if len(Path(top).parts) > _DEEPEST:
            raise PipelineError(f"{top} is too deep, perhaps by a link to a folder above it")
        paths = (Path(top, name) for name in names)
        yield from (str(path.relative_to(folder)) for path in paths if path.is_file())


def is_wanted(name: str) -> bool:
    """Return whether the file is the user's: not hidden, and not left by the operating system."""
    return not any(part.startswith(".") or part in _OF_THE_SYSTEM for part in parts(name))


def _refuse(error: OSError) -> None:
    raise PipelineError(f"{error.filename}: {error.strerror}: let this user read it, or remove it")


_Members = tuple[Iterable[str], Callable[[str], IO[bytes] | None]]


@contextmanager
def _zip(source: Path) -> Iterator[_Members]:
    try:
        archive = zipfile.ZipFile(source)
    except FileNotFoundError:
        raise _missing(source) from None
    except _UNREADABLE as error:
        raise _unsound(source, "zip", error) from error
    with archive:
        entries = archive.infolist()
        _require_inside(source, (entry.filename for entry in entries))
        _require_size(source, sum(entry.file_size for entry in entries))
        links = [each.filename for each in entries if stat.S_ISLNK(each.external_attr >> 16)]
        _require_files(source, links)
        names = [entry.filename for entry in entries if not entry.is_dir()]
        yield dict.fromkeys(names), archive.open


@contextmanager
def _tar(source: Path) -> Iterator[_Members]:
    with tempfile.TemporaryFile() as plain:
        try:
            _unpack(source, plain)
            archive = tarfile.open(fileobj=plain, mode="r:")  # noqa: SIM115  closed below
            members = archive.getmembers()
        except FileNotFoundError:
            raise _missing(source) from None
        except _UNREADABLE as error:
            raise _unsound(source, "tar", error) from error
        with archive:
            _require_inside(source, (member.name for member in members))
            _require_files(
                source, [each.name for each in members if not (each.isreg() or each.isdir())]
            )
            names = [member.name for member in members if member.isreg()]
            yield dict.fromkeys(names), archive.extractfile


def _unpack(source: Path, target: IO[bytes]) -> None:
    """Write a tar without its compression: to go back in a compressed one is to start again."""
    with tarfile.open(source) as archive:
        packed = archive.fileobj
        assert packed
        packed.seek(0)
        most = max(_BOMB_BYTES, _BOMB_RATIO * source.stat().st_size)
        while chunk := packed.read(2**20):
            target.write(chunk)
            if target.tell() > most:
                _require_size(source, target.tell())
    target.seek(0)


def _missing(source: Path) -> PipelineError:
    return PipelineError(f"{source} does not exist: name a folder, a .zip or a .tar")


def _unsound(source: Path, kind: str, error: Exception) -> PipelineError:
    return PipelineError(
        f"{source} is no sound {kind} ({error}): name a folder, or {kind} it again"
    )


def _require_inside(source: Path, names: Iterable[str]) -> None:
    """Refuse names that are outside of the archive: nobody makes them by accident."""
    for name in names:
        folders = parts(name)
        outside = name[:1] in ("/", "\\") or (folders[:1] and folders[0].endswith(":"))
        if outside or ".." in folders:
            kind = "tar" if source.name.lower().endswith(TARS) else "zip"
            raise PipelineError(
                f"{source} has a name outside of it, {shown(name)}: {kind} the folder again"
            )


def _require_files(source: Path, others: list[str]) -> None:
    """Refuse links and devices."""
    if others:
        raise PipelineError(
            f"{source} holds a link or device, {shown(others[0])}: pack the files themselves"
        )


def _require_size(source: Path, total: int) -> None:
    size = source.stat().st_size
    if total > max(_BOMB_BYTES, _BOMB_RATIO * size):
        raise PipelineError(
            f"{source} unpacks to {total / 1e9:,.1f} GB, {total // size:,} times its size, as a zip"
            " bomb does: unpack it yourself and name the folder"
        )


def _some(names: Iterable[str], source: Path) -> list[str]:
    """Return the names of pictures, sorted; a file whose ending is not a picture's is left out."""
    found = sorted(name for name in names if is_wanted(name) and _is_picture(name))
    if not found:
        raise PipelineError(
            f"{source} has no pictures: name a folder or .zip of files such as .png or .jpg"
        )
    return found


def _is_picture(name: str) -> bool:
    return _may_be_picture(PurePosixPath(parts(name)[-1]).suffix.lower())


@cache
def _may_be_picture(suffix: str) -> bool:
    kind, packed = guess_type(f"a{suffix}", strict=False)
    if kind or packed:
        return not packed and str(kind).startswith("image/")
    return not suffix or suffix in Image.registered_extensions()


def _content(open_file: Callable[[str], IO[bytes] | None], name: str, *, most: int) -> bytes | str:
    try:
        file = open_file(name)
        if file is None:
            return "no file"
        with file:
            found = file.read(most + 1)
    except _UNREADABLE as error:
        reason = error.strerror if isinstance(error, OSError) else ""
        return reason or str(error) or "the file is cut off"
    return found if len(found) <= most else f"more than {most:,} bytes"
