"""Files that are written through memory: allocated first, so that a full disk cannot kill.

A write to a mapped hole that the disk has no room for ends the process (SIGBUS).
"""

import os
import struct
from pathlib import Path

from prometheus_client.mmap_dict import MmapedDict

# Bytes; more than the counters or the histograms take until models have been replaced many times.
FIRST_SIZE = 256 * 1024
_NUMBERS = struct.Struct("dd")


def allocate(file: int, size: int) -> None:
    """Give an open file `size` bytes on the disk, zeros after its end; else raise OSError."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    elif os.fstat(file).st_size < size:  # macOS
        os.truncate(file, size)


class AllocatedValues:
    """prometheus_client's file of values, allocated when it is made and whenever it grows.

    A value that the disk has no room for waits in its process: a later write stores it.
    """

    def __init__(self, filename: str) -> None:
        self._path = Path(filename)
        self._file: MmapedDict | None = None
        self._positions: dict[str, int] = {}

    def read_value(self, key: str) -> tuple[float, float]:
        """Return the value and its time in seconds since 1970; zeros if it waits for room."""
        if not self._find(key):
            return 0.0, 0.0
        value, timestamp = _NUMBERS.unpack_from(self._map, self._positions[key])
        return value, timestamp

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        """Store the value and its time, if there is room."""
        if key in self._positions or self._find(key):
            start = self._positions[key]
            self._map[start : start + 16] = _NUMBERS.pack(value, timestamp)  # at once, not torn

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()

    def _find(self, key: str) -> bool:
        """Make a place for the key if it has none; return False if the disk has no room."""
        if key in self._positions:
            return True
        more = len(key.encode()) + 32  # at most: a length, the padding and two numbers
        try:
            while not self._file or self._file._used + more > self._file._capacity:
                self._grow()
        except OSError:
            return False
        self._file.read_value(key)
        return True

    def _grow(self) -> None:
        # The collector reads *.db, and fails on an empty one.
        path = self._path if self._path.exists() else self._path.with_suffix(".new")
        with path.open("ab") as file:
            size = file.tell()
            allocate(file.fileno(), 2 * size if self._file else max(size, FIRST_SIZE))
        path.replace(self._path)
        self.close()
        self._file = MmapedDict(str(self._path))
        self._positions, self._map = self._file._positions, self._file._m
