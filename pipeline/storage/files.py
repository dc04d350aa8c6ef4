"""Atomic writes: a file is there whole, or not at all."""

import csv
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from pipeline.config import PipelineError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; renames it to `path` if the block raises nothing.

    The name keeps its ending, because some writers choose the format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def replace_value(file: Path, start: str, value: str) -> bool:
    """Write `value` into the one line that starts with `start`; return whether that changed it.

    A comment behind the value and all other lines stay. It is a PipelineError if no line starts
    so, or several do.
    """
    before = file.read_text()
    after, lines = re.subn(rf"(?m)^({start})\S+", rf"\g<1>{value}", before)
    if lines != 1:
        raise PipelineError(f"{file} must have one line `{start}…`")
    if after != before:
        write(file, after)
    return after != before


def write(path: Path, content: str | bytes) -> None:
    """Write a text or bytes."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, content: object) -> None:
    """Write `content` as JSON; equal content gives equal bytes."""
    write(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; {} if there is no such file."""
    return dict(json.loads(path.read_bytes())) if path.exists() else {}


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table with one line of titles."""
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def write_arrays(path: Path, **arrays: NDArray[Any]) -> None:
    """Write an uncompressed `.npz`; equal arrays give equal bytes."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock of that file, if there is one."""
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True


def sha256(path: Path) -> str:
    """Return the hex digest of the file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
