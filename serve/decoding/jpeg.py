"""The segments of a JPEG file, as libjpeg finds them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from struct import unpack_from

from serve.imaging.errors import NotAnImageError

MAX_SEGMENTS = 20_000  # 10 ms; real files have a few hundred at most

_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd8]")  # of a segment, or of the end
_END, _SCAN = 0xD9, 0xDA
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15, which hold the size
_SEQUENTIAL = {0xC0, 0xC1, 0xC9}
_LOSSLESS = {0xC3, 0xC7, 0xCB, 0xCF}
_GAP = 2**16  # stray bytes to skip between segments, as libjpeg does


def count_scans(content: bytes) -> int:
    """Return the number of scans; bytes after the end do not count."""
    return sum(marker == _SCAN for marker, _ in _segments(content))


def size(content: bytes) -> tuple[int, int]:
    """Return the declared width and height."""
    _, place = _frame(content)
    height, width = unpack_from(">HH", content, place + 3)
    return width, height


def stored_samples(content: bytes) -> float | None:
    """Return how many samples per pixel the decoder must store; None if it cannot reduce.

    It stores none if it can pass on each row as it comes: if the first scan has all components, and
    is not refined by others.
    """
    marker, place = _frame(content)
    if marker in _LOSSLESS:
        return None
    components = content[place + 7]
    scan = next(place for marker, place in _segments(content) if marker == _SCAN)
    if marker in _SEQUENTIAL and content[scan + 2] == components:
        return 0
    factors = content[place + 9 : place + 8 + 3 * components : 3]
    across, down = [each >> 4 for each in factors], [each & 15 for each in factors]
    samples = sum(map(int.__mul__, across, down))
    return samples / (max(across) * max(down))


def _frame(content: bytes) -> tuple[int, int]:
    """Return the marker and the place of the segment with the size."""
    for marker, place in _segments(content):
        if marker in _FRAMES:
            return marker, place
        if marker == _SCAN:
            break
    raise NotAnImageError("the JPEG image is damaged")


def _segments(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield the marker and offset of each segment up to the end."""
    found = _MARKER.search(content, 2, 2 + _GAP)
    for _ in range(MAX_SEGMENTS):
        if not found or content[found.end() - 1] == _END:
            return
        marker, place = content[found.end() - 1], found.end()
        yield marker, place
        after = place + int.from_bytes(content[place : place + 2])
        found = _MARKER.search(content, after, len(content) if marker == _SCAN else after + _GAP)
    raise NotAnImageError("the JPEG image has too many segments")
