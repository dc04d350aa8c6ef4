"""Ring buffers of recent answers: the models' images with their predictions, of all workers.

Each worker writes its own ring buffer, a file of fixed size under `STATE_DIR`, for each format of
images. Reading searches those of all workers. A file outlives its worker: the next worker continues
where it ended. It is mapped: two writes to a file on ext4 took 10 us, where all of `add` takes
3 us.
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
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serve.models.image_format import DIGITS, ImageFormat, Label
from serve.telemetry.allocated_files import allocate

logger = logging.getLogger(__name__)

_MAGIC = b"digits4\0"
_OTHER_MAGIC = b"images1\0"  # of what is not the ten digits
_OTHER_BYTES = 2**25  # that a ring buffer of other images may have, for each worker
_PART_BYTES = 2**22  # that are read of a ring buffer at once: those of many workers are large
_HEADER = struct.Struct("<8sQQ")  # magic, slots, answers written so far
_HEADER_SIZE = 64
_NUMBERS = slice(8, 24)  # of the header, in the file: slots, answers
_COUNT = slice(16, 24)
_RETRY_SECONDS = 5.0  # between attempts to allocate a ring buffer on a full disk

Answer = dict[str, Any]  # a response of /predict


class Seen(NamedTuple):
    """A model's input image, its prediction and its version."""

    image: NDArray[np.uint8]
    prediction: Label
    model_version: str
    images: ImageFormat


class Window(NamedTuple):
    """The latest n answers, the oldest first."""

    images: NDArray[np.uint8]  # (n, 28, 28), or of another size
    probabilities: NDArray[np.float32]  # (n, classes)
    predictions: NDArray[np.uint8]  # places in `labels`
    versions: NDArray[np.str_]
    times: NDArray[np.int64]  # nanoseconds since 1970
    likelihoods: NDArray[np.float32]  # NaN where the model gave none
    labels: NDArray[np.str_] | None  # None for the digits, which are their own labels

    def npz(self) -> bytes:
        """Return the content of an `.npz` file with these arrays."""
        file = BytesIO()
        arrays = {name: array for name, array in self._asdict().items() if array is not None}
        np.savez(file, allow_pickle=False, **arrays)
        return file.getvalue()


class RecentAnswers:
    """The ring buffers in a folder; this process writes to one of them.

    `slots`: how many answers are kept, fewer of large images. `answer_size`: bytes of each.
    """

    def __init__(self, folder: Path, slots: int, images: ImageFormat = DIGITS) -> None:
        self._digits = images == DIGITS
        if not self._digits:
            folder /= images.digest
        folder.mkdir(parents=True, exist_ok=True)
        self._images, self._slot, self._content = images, *_formats(images)
        self.answer_size = self._slot.itemsize
        self._places = {label: place for place, label in enumerate(images.labels)}
        self._magic = _MAGIC if self._digits else _OTHER_MAGIC
        most = slots if self._digits else max(1, _OTHER_BYTES // self.answer_size)
        self._folder, self._slots = folder, min(slots, most)
        self._file = self._claim()
        self._ring: mmap.mmap | None = None
        self._written, self._retry_at = 0, 0.0
        self._lock = threading.Lock()
        self._open()

    def _open(self) -> mmap.mmap | None:
        """Map the ring buffer; on a full disk return None, and try again from time to time."""
        if time.monotonic() < self._retry_at:
            return None
        size = _HEADER_SIZE + self._slots * self.answer_size
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
        same = magic == self._magic and kept == self._slots
        self._written = written if same else 0
        header = _HEADER.pack(self._magic, self._slots, self._written)
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
        """Store an image and its answer over the oldest; takes some microseconds.

        `owner`: see RequestContext. Where the full disk left no room for the ring buffer, nothing
        is stored.
        """
        content = self._content.pack(
            answer["request_id"].encode(),
            owner.encode(),
            answer["model_version"].encode(),
            self._places[answer["prediction"]],
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
            start = _HEADER_SIZE + self._written % self._slots * self.answer_size
            ring[start : start + self.answer_size] = slot
            self._written += 1
            # At once: `pack_into` writes zeros first, which another worker may read.
            ring[_COUNT] = self._written.to_bytes(8, "little")

    def find(self, request_id: str, owner: str) -> Seen | None:
        """Return the latest image of the owner's request, if it is not yet overwritten."""
        found = np.empty(0, self._slot)
        for slots in self._latest(None):
            own = (slots["request_id"] == request_id.encode()) & (slots["owner"] == owner.encode())
            found = np.concatenate([found, _whole(slots[own])])
        if not len(found):
            return None
        latest = found[found["time"].argmax()]
        label = self._images.labels[latest["prediction"]]
        return Seen(latest["image"], label, latest["model_version"].decode(), self._images)

    def window(self, most: int) -> Window:
        """Return the latest `most` answers of all workers; no more than that is read per ring."""
        slots = _whole(np.concatenate([np.empty(0, self._slot), *self._latest(most)]))
        slots = slots[np.argsort(slots["time"], kind="stable")][-most:]
        return Window(
            slots["image"],
            slots["probabilities"],
            slots["prediction"],
            np.char.decode(slots["model_version"]),
            slots["time"],
            slots["digit_likelihood"],
            None if self._digits else np.array(self._images.labels, np.str_),
        )

    def _latest(self, most: int | None) -> Iterator[NDArray[np.void]]:
        """Yield the latest slots of each ring buffer in this code's format, in parts."""
        for path in self._folder.glob("*.ring"):
            yield from self._read(path, most)

    def _read(self, path: Path, most: int | None) -> Iterator[NDArray[np.void]]:
        """Yield the latest slots of a ring buffer, half-written ones too; none if unreadable."""
        with path.open("rb") as file:
            head = file.read(_HEADER.size).ljust(_HEADER.size, b"\0")
        magic, kept, written = _HEADER.unpack(head)
        if magic != self._magic:
            return
        wanted = min(kept, written, most or kept)
        first = (written - wanted) % kept
        before = min(wanted, kept - first)  # slots at the end are older than those at the start
        part = max(1, _PART_BYTES // self.answer_size)
        for start, end in (first, first + before), (0, wanted - before):
            for at in range(start, end, part):
                offset = _HEADER_SIZE + at * self.answer_size
                yield np.fromfile(path, self._slot, min(part, end - at), offset=offset)


def _formats(images: ImageFormat) -> tuple[np.dtype[np.void], struct.Struct]:
    """Return a slot's fields, and the same without the checksum, which is faster to write."""
    classes = len(images.labels)
    slot = np.dtype(
        [
            ("request_id", "S64"),
            ("owner", "S16"),
            ("model_version", "S48"),
            ("prediction", "u1"),
            ("time", "<i8"),  # nanoseconds since 1970
            ("probabilities", "<f4", (classes,)),
            ("digit_likelihood", "<f4"),
            ("image", "u1", images.sides),
            ("checksum", "<u4"),  # CRC-32 of all before it
        ]
    )
    return slot, struct.Struct(f"<64s16s48sBq{4 * classes}sf{images.size}s")


def _whole(slots: NDArray[np.void]) -> NDArray[np.void]:
    """Return the slots without half-written ones."""
    return slots[[zlib.crc32(slot.tobytes()[:-4]) == int(slot["checksum"]) for slot in slots]]
