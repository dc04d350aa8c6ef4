"""Ring buffers of recent answers: 28x28 images with their predictions, of all workers.

Each worker writes its own ring buffer, a file of fixed size under `STATE_DIR`. Reading searches
all of them. A file outlives its worker: the next worker continues where it ended. It is mapped:
two writes to a file on ext4 took 10 us, where all of `add` takes 3 us.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import struct
import threading
import time
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serve.imaging.placement import SIDE
from serve.telemetry.allocated_files import allocate

logger = logging.getLogger(__name__)

_MAGIC = b"digits4\0"
_HEADER = struct.Struct("<8sQQ")  # magic, slots, answers written so far
_HEADER_SIZE = 64
_NUMBERS = slice(8, 24)  # of the header, in the file: slots, answers
_COUNT = slice(16, 24)
_SLOT = np.dtype(
    [
        ("request_id", "S64"),
        ("owner", "S16"),
        ("model_version", "S48"),
        ("prediction", "u1"),
        ("time", "<i8"),  # nanoseconds since 1970
        ("probabilities", "<f4", (10,)),
        ("digit_likelihood", "<f4"),
        ("image", "u1", (SIDE, SIDE)),
        ("checksum", "<u4"),  # CRC-32 of all before it
    ]
)
ANSWER_SIZE = _SLOT.itemsize  # bytes
_CONTENT = struct.Struct("<64s16s48sBq40sf784s")  # the same without the checksum, faster to write
_RETRY_SECONDS = 5.0  # between attempts to allocate a ring buffer on a full disk

Answer = dict[str, Any]  # a response of /predict


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
        self._ring: mmap.mmap | None = None
        self._written, self._retry_at = 0, 0.0
        self._lock = threading.Lock()
        self._open()

    def _open(self) -> mmap.mmap | None:
        """Map the ring buffer; on a full disk return None, and try again from time to time."""
        if time.monotonic() < self._retry_at:
            return None
        size = _HEADER_SIZE + self._slots * ANSWER_SIZE
        try:
            allocate(self._file, size)
        except OSError as error:
            if not self._retry_at:
                logger.warning("answers are not kept, so feedback needs the image: %s", error)
            self._retry_at = time.monotonic() + _RETRY_SECONDS
            return None
        os.truncate(self._file, size)
        self._ring = mmap.mmap(self._file, size)
        magic, kept, written = _HEADER.unpack_from(self._ring)
        same = magic == _MAGIC and kept == self._slots
        self._written = written if same else 0
        header = _HEADER.pack(_MAGIC, self._slots, self._written)
        self._ring[_NUMBERS] = header[_NUMBERS]  # before the magic, which makes them valid
        self._ring[:8] = header[:8]
        return self._ring

    def close(self) -> None:
        """Close the ring buffer, so that the next worker can continue it."""
        if self._ring:
            self._ring.close()
        os.close(self._file)

    def _claim(self) -> int:
        """Open and lock the first ring buffer that no living process writes to."""
        place = 0
        while True:
            file = os.open(self._folder / f"{place}.ring", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                place += 1
            else:
                return file

    def add(self, answer: Answer, image: NDArray[np.uint8], owner: str) -> None:
        """Store a (28, 28) image and its answer over the oldest; takes some microseconds.

        `owner`: see RequestContext. Where the full disk left no room for the ring buffer, nothing
        is stored.
        """
        content = _CONTENT.pack(
            answer["request_id"].encode(),
            owner.encode(),
            answer["model_version"].encode(),
            answer["prediction"],
            time.time_ns(),
            answer["probabilities"].tobytes(),
            answer["digit_likelihood"],
            image.tobytes(),
        )
        slot = content + zlib.crc32(content).to_bytes(4, "little")
        with self._lock:
            ring = self._ring or self._open()
            if not ring:
                return
            start = _HEADER_SIZE + self._written % self._slots * ANSWER_SIZE
            ring[start : start + ANSWER_SIZE] = slot
            self._written += 1
            # At once: `pack_into` writes zeros first, which another worker may read.
            ring[_COUNT] = self._written.to_bytes(8, "little")

    def find(self, request_id: str, owner: str) -> Seen | None:
        """Return the latest image of the owner's request, if it is not yet overwritten."""
        slots = self._latest(None)
        own = (slots["request_id"] == request_id.encode()) & (slots["owner"] == owner.encode())
        found = _whole(slots[own])
        if not len(found):
            return None
        latest = found[found["time"].argmax()]
        return Seen(latest["image"], int(latest["prediction"]), latest["model_version"].decode())

    def window(self, most: int) -> Window:
        """Return the latest `most` answers of all workers; no more than that is read per ring."""
        slots = _whole(self._latest(most))
        slots = slots[np.argsort(slots["time"], kind="stable")][-most:]
        return Window(
            slots["image"],
            slots["probabilities"],
            slots["prediction"],
            np.char.decode(slots["model_version"]),
            slots["time"],
            slots["digit_likelihood"],
        )

    def _latest(self, most: int | None) -> NDArray[np.void]:
        """Return the latest slots of each ring buffer in this code's format."""
        return np.concatenate([_read(path, most) for path in self._folder.glob("*.ring")])


def _read(path: Path, most: int | None) -> NDArray[np.void]:
    """Return the latest slots of a ring buffer, half-written ones too; none if unreadable."""
    with path.open("rb") as file:
        magic, kept, written = _HEADER.unpack(file.read(_HEADER.size).ljust(_HEADER.size, b"\0"))
    if magic != _MAGIC:
        return np.empty(0, _SLOT)
    wanted = min(kept, written, most or kept)
    first = (written - wanted) % kept
    before = min(wanted, kept - first)  # slots at the ring's end are older than those at its start
    parts = [(first, before), (0, wanted - before)]
    return np.concatenate(
        [np.fromfile(path, _SLOT, n, offset=_HEADER_SIZE + at * ANSWER_SIZE) for at, n in parts]
    )


def _whole(slots: NDArray[np.void]) -> NDArray[np.void]:
    """Return the slots without half-written ones."""
    return slots[[zlib.crc32(slot.tobytes()[:-4]) == int(slot["checksum"]) for slot in slots]]
