"""The 28x28 images of recent requests, found by request id whichever worker answered.

Each worker writes a ring of its own, a file of fixed size under `STATE_DIR`; reading looks into all
of them. A file lasts longer than its worker: the next one writes on where it ended.
"""

from __future__ import annotations

import fcntl
import mmap
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from io import BufferedRandom
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_SIDE = 28
_MAGIC = b"digits2\0"
_HEADER = struct.Struct("<8sQQ")  # magic, slots, images written so far
_HEADER_SIZE = 64
# Id, version, digit, checksum, pixels, nanoseconds since 1970.
_SLOT = struct.Struct("<64s48sBxxxI784sQ")
_SLOT_SIZE = _SLOT.size


class Seen(NamedTuple):
    """What a model saw, and what it said."""

    image: NDArray[np.uint8]  # (28, 28)
    prediction: int
    model_version: str


class Recent:
    """The rings in a folder; this process writes to one of them."""

    def __init__(self, folder: Path, slots: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._slots = folder, slots
        self._file = self._claim()
        size = _HEADER_SIZE + slots * _SLOT_SIZE
        self._file.truncate(size)
        self._ring = mmap.mmap(self._file.fileno(), size)
        magic, kept, written = _HEADER.unpack_from(self._ring)
        same = magic == _MAGIC and kept == slots
        self._written = written if same else 0
        self._lock = threading.Lock()

    def close(self) -> None:
        """Leaves the ring to the next worker."""
        self._ring.close()
        self._file.close()

    def _claim(self) -> BufferedRandom:
        """The first ring that no living process writes; being open, it is locked."""
        place = 0
        while True:
            file = (self._folder / f"{place}.ring").open("a+b")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                place += 1
            else:
                return file

    def add(self, request_id: bytes, version: bytes, digit: int, image: NDArray[np.uint8]) -> None:
        """Remembers an image; forgets the oldest. Some microseconds."""
        pixels = image.tobytes()
        checksum = zlib.crc32(pixels)
        with self._lock:
            place = _HEADER_SIZE + self._written % self._slots * _SLOT_SIZE
            now = time.time_ns()
            _SLOT.pack_into(self._ring, place, request_id, version, digit, checksum, pixels, now)
            self._written += 1
            _HEADER.pack_into(self._ring, 0, _MAGIC, self._slots, self._written)

    def find(self, request_id: str) -> Seen | None:
        """The latest image of the request, if it is still there."""
        wanted = request_id.encode()[:64].ljust(64, b"\0")
        rings = (path.read_bytes() for path in self._folder.glob("*.ring"))
        found = (each for ring in rings for each in _search(ring, wanted))
        return max(found, key=lambda each: each[0], default=(0, None))[1]


def _search(ring: bytes, wanted: bytes) -> Iterator[tuple[int, Seen]]:
    """All images of the request in the ring, with their times."""
    start = ring.find(wanted, _HEADER_SIZE)
    while start >= 0:
        if (start - _HEADER_SIZE) % _SLOT_SIZE == 0:
            _, version, digit, checksum, pixels, when = _SLOT.unpack_from(ring, start)
            if zlib.crc32(pixels) == checksum:
                image = np.frombuffer(pixels, np.uint8).reshape(_SIDE, _SIDE)
                yield when, Seen(image, digit, version.rstrip(b"\0").decode())
        start = ring.find(wanted, start + 1)
