"""Ring buffers of recent answers: 28x28 images with their predictions, of all workers.

Each worker writes its own ring buffer, a file of fixed size under `STATE_DIR`. Reading searches
all of them. A file outlives its worker: the next worker continues where it ended.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from io import BufferedRandom, BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serve.imaging.placement import SIDE

_MAGIC = b"digits3\0"
_HEADER = struct.Struct("<8sQQ")  # magic, slots, images written so far
_HEADER_SIZE = 64
# Id, version, digit, nanoseconds since 1970, probabilities, likelihood, pixels. A CRC-32 follows.
_CONTENT = struct.Struct("<64s48sBQ40sf784s")
_SLOT = np.dtype(
    [
        ("request_id", "S64"),
        ("version", "S48"),
        ("prediction", "u1"),
        ("time", "<i8"),
        ("probabilities", "<f4", (10,)),
        ("likelihood", "<f4"),
        ("image", "u1", (SIDE, SIDE)),
        ("checksum", "<u4"),
    ]
)
_SLOT_SIZE = _SLOT.itemsize
ANSWER_SIZE = _SLOT_SIZE  # bytes


class Seen(NamedTuple):
    """A model's input image, its prediction and its version."""

    image: NDArray[np.uint8]  # (28, 28)
    prediction: int
    model_version: str


class Window(NamedTuple):
    """The latest n answers, the oldest first."""

    images: NDArray[np.uint8]  # (n, 28, 28)
    probabilities: NDArray[np.float32]  # (n, 10)
    predictions: NDArray[np.uint8]
    versions: NDArray[np.str_]
    times: NDArray[np.int64]  # nanoseconds since 1970
    likelihoods: NDArray[np.float32]  # NaN where the model gave none

    def npz(self) -> bytes:
        """Return the content of an `.npz` file with these arrays."""
        file = BytesIO()
        np.savez(file, allow_pickle=False, **self._asdict())
        return file.getvalue()


class RecentAnswers:
    """The ring buffers in a folder; this process writes to one of them."""

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
        _HEADER.pack_into(self._ring, 0, _MAGIC, slots, self._written)
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the ring buffer, so that the next worker can continue it."""
        self._ring.close()
        self._file.close()

    def _claim(self) -> BufferedRandom:
        """Open and lock the first ring buffer that no living process writes to."""
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

    def add(
        self,
        request_id: bytes,
        version: bytes,
        digit: int,
        image: NDArray[np.uint8],
        probabilities: NDArray[np.float32],
        likelihood: float = math.nan,
    ) -> None:
        """Store an image and its answer over the oldest; takes some microseconds."""
        pixels, shares = image.tobytes(), probabilities.tobytes()
        with self._lock:
            start = _HEADER_SIZE + self._written % self._slots * _SLOT_SIZE
            now = time.time_ns()
            content = _CONTENT.pack(request_id, version, digit, now, shares, likelihood, pixels)
            checksum = zlib.crc32(content).to_bytes(4, "little")
            self._ring[start : start + _SLOT_SIZE] = content + checksum
            self._written += 1
            _HEADER.pack_into(self._ring, 0, _MAGIC, self._slots, self._written)

    def find(self, request_id: str) -> Seen | None:
        """Return the latest image of the request, if it is not yet overwritten."""
        wanted = request_id.encode()[:64].ljust(64, b"\0")
        found = [slot for ring in self._rings() for slot in _search(ring, wanted)]
        if not found:
            return None
        latest = max(found, key=lambda slot: int(slot["time"]))
        return Seen(latest["image"], int(latest["prediction"]), latest["version"].decode())

    def window(self, most: int) -> Window:
        """Return the latest `most` answers of all workers; no more than that is read per ring."""
        slots = np.concatenate([_latest(path, most) for path in self._folder.glob("*.ring")])
        slots = slots[np.argsort(slots["time"], kind="stable")][-most:]
        return Window(
            slots["image"],
            slots["probabilities"],
            slots["prediction"],
            np.char.decode(slots["version"]),
            slots["time"],
            slots["likelihood"],
        )

    def _rings(self) -> Iterator[bytes]:
        """Yield the content of each ring buffer in this code's format."""
        for path in self._folder.glob("*.ring"):
            ring = path.read_bytes()
            if ring.startswith(_MAGIC):
                yield ring


def _search(ring: bytes, wanted: bytes) -> Iterator[np.void]:
    """Yield the request's slots in the ring buffer, without half-written ones."""
    start = ring.find(wanted, _HEADER_SIZE)
    while start >= 0:
        if (start - _HEADER_SIZE) % _SLOT_SIZE == 0:
            (slot,) = np.frombuffer(ring, _SLOT, 1, start)
            if _is_whole(slot):
                yield slot
        start = ring.find(wanted, start + 1)


def _latest(path: Path, most: int) -> NDArray[np.void]:
    """Return the latest slots of a ring buffer, without half-written ones; none if unreadable."""
    with path.open("rb") as file:
        header = file.read(_HEADER.size)
        kept = written = 0
        if header.startswith(_MAGIC) and len(header) == _HEADER.size:
            _, kept, written = _HEADER.unpack(header)
        wanted = min(most, kept, written)
        end = written % kept if wanted else 0
        before = min(wanted, end)  # slots at the ring's end are older than those at its start
        parts = []
        for start, count in ((kept - (wanted - before), wanted - before), (end - before, before)):
            file.seek(_HEADER_SIZE + start * _SLOT_SIZE)
            parts.append(file.read(count * _SLOT_SIZE))
    content = b"".join(parts)
    slots = np.frombuffer(content, _SLOT, len(content) // _SLOT_SIZE)
    return slots[[place for place in range(len(slots)) if _is_whole(slots[place])]]


def _is_whole(slot: np.void) -> bool:
    content = slot.tobytes()
    return zlib.crc32(content[:-4]) == int(slot["checksum"])
