"""Find picture files, read them, and ask the service in batches, several at once."""

import glob
import os
import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from serve.client.service import Answer, Limits, Service

Found = tuple[str, bytes | Answer]  # a file's name, and its content or why there is none

_STDIN = "-"
_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"}
_CHUNK = 64  # pictures per batch: few, so that the first answers come soon


def files(arguments: Iterable[str]) -> Iterator[str]:
    """Yield file names: all pictures of a folder, and all matches of a glob pattern.

    Without any match, yield the argument itself, so that reading it reports the error.
    """
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            yield from _pictures(path.rglob("*")) or [argument]
        elif glob.has_magic(argument) and not path.is_file():
            matches = map(Path, glob.iglob(argument, recursive=True))  # noqa: PTH207 - absolute too
            yield from _pictures(matches) or [argument]
        else:
            yield argument


def _pictures(paths: Iterable[Path]) -> list[str]:
    return sorted(
        str(path) for path in paths if path.suffix.lower() in _SUFFIXES and not path.is_dir()
    )


def shown(name: str) -> str:
    r"""Return the name as text; a byte that is not UTF-8 is written as `\xff`."""
    return os.fsencode(name).decode(errors="backslashreplace")


def read(name: str, largest: int) -> bytes | Answer:
    """Return the content of a file, or as `detail` the reason why it cannot be read."""
    try:
        content = sys.stdin.buffer.read() if name == _STDIN else Path(name).read_bytes()
    except IsADirectoryError:
        return {"detail": "a folder without pictures"}
    except OSError as error:
        return {"detail": error.strerror or str(error)}
    if len(content) > largest:
        return {"detail": f"{len(content):,} bytes, more than the {largest:,} allowed"}
    return content


def ask(
    service: Service, names: Iterable[str], limits: Limits, parallel: int
) -> Generator[tuple[str, Answer]]:
    """Yield each name with its answer, in order; `parallel` requests are on the way."""
    pending: deque[Future[list[tuple[str, Answer]]]] = deque()
    with ThreadPoolExecutor(parallel) as pool:
        try:
            for batch in _batches(names, limits):
                pending.append(pool.submit(_answers, service, batch))
                if len(pending) > parallel:
                    yield from pending.popleft().result()
            for one in pending:
                yield from one.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _batches(names: Iterable[str], limits: Limits) -> Iterator[list[Found]]:
    batch: list[Found] = []
    size = 0
    for name in names:
        found = read(name, limits.image_bytes)
        length = len(found) if isinstance(found, bytes) else 0
        if len(batch) == min(limits.batch, _CHUNK) or size + length > limits.image_bytes:
            yield batch
            batch, size = [], 0
        size += length
        batch.append((name, found))
    yield batch


def _answers(service: Service, batch: list[Found]) -> list[tuple[str, Answer]]:
    contents = [found for _, found in batch if isinstance(found, bytes)]
    answers = iter(service.predict(contents) if contents else [])
    return [(name, next(answers) if isinstance(found, bytes) else found) for name, found in batch]
