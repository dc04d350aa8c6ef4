"""What an image file declares in its header, read without decoding anything."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from struct import unpack_from

from serve.imaging.errors import NotAnImageError

Size = tuple[int, int]

_MOST = 20_000  # parts of a header: it may be read in the event loop

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)

_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd8]")  # that ends data, or begins a segment
_END, _SCAN = 0xD9, 0xDA
_GAP = 2**16  # bytes between segments that nobody needs
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}

_COMMENT, _APPLICATION = 0xFE, 0xFF  # a GIF's extensions

_TIFF_SIZES = {1: "B", 3: "H", 4: "I", 16: "Q"}  # struct's letters for the types of a tag
_WIDTH, _HEIGHT = 256, 257


def format_of(content: bytes) -> str | None:
    """Pillow's name of the format, by the first bytes; None if it is none that is decoded."""
    for signature, name in _SIGNATURES:
        if content.startswith(signature):
            return name
    return "WEBP" if content[:4] == b"RIFF" and content[8:12] == b"WEBP" else None


def declared_size(content: bytes, file_format: str) -> Size:
    """Width and height, of the first frame if that is larger than its screen.

    Raises:
        NotAnImageError: the header is damaged.
    """
    try:
        return _READERS[file_format](content)
    except (struct.error, IndexError, KeyError) as error:
        raise NotAnImageError(f"the {file_format} image is damaged") from error


def declared_pixels(content: bytes) -> int:
    """How many pixels the file declares; 0 if it will be refused at once."""
    file_format = format_of(content)
    if not file_format:
        return 0
    try:
        width, height = declared_size(content, file_format)
    except NotAnImageError:
        return 0
    return width * height


def scans(content: bytes) -> int:
    """How often a JPEG goes over its pixels; what comes after its end does not count."""
    return sum(marker == _SCAN for marker, _ in _segments(content))


def _png(content: bytes) -> Size:
    return int.from_bytes(content[16:20]), int.from_bytes(content[20:24])


def _segments(content: bytes) -> Iterator[tuple[int, int]]:
    """The marker and place of each segment of a JPEG, up to its end, as libjpeg finds them."""
    found = _MARKER.search(content, 2, 2 + _GAP)
    for _ in range(_MOST):
        if not found or content[found.end() - 1] == _END:
            return
        marker, place = content[found.end() - 1], found.end()
        yield marker, place
        after = place + int.from_bytes(content[place : place + 2])
        found = _MARKER.search(content, after, len(content) if marker == _SCAN else after + _GAP)
    raise NotAnImageError("the JPEG image has too many segments")


def _jpeg(content: bytes) -> Size:
    for marker, place in _segments(content):
        if marker in _FRAMES:
            height, width = unpack_from(">HH", content, place + 3)
            return width, height
        if marker == _SCAN:
            break
    raise NotAnImageError("the JPEG image is damaged")


def _gif(content: bytes) -> Size:
    width, height, flags = unpack_from("<HHB", content, 6)
    place = 13 + _colours(flags)
    steps = iter(range(_MOST))
    for _ in steps:
        kind = content[place]
        place += 1
        if kind == ord(","):
            left, top, across, down = unpack_from("<HHHH", content, place)
            return max(width, left + across), max(height, top + down)
        if kind == ord("!"):
            place = _after_extension(content, place, steps)
        elif kind == ord(";"):
            break
    raise NotAnImageError("the GIF image is damaged")


def _colours(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 128 else 0


def _after_extension(content: bytes, place: int, steps: Iterator[int]) -> int:
    """Where a GIF's extension ends, as Pillow reads it: some blocks even if they are empty."""
    code, place = content[place], place + 1
    if code != _COMMENT:
        application = code == _APPLICATION and content[place + 1 : place + 12] == b"NETSCAPE2.0"
        for _ in range(2 if application else 1):
            place += 1 + content[place]
    for _ in steps:
        if not content[place]:
            break
        place += 1 + content[place]
    return place + 1


def _bmp(content: bytes) -> Size:
    if unpack_from("<I", content, 14)[0] == 12:
        width, height = unpack_from("<HH", content, 18)
    else:
        width, height = unpack_from("<ii", content, 18)
    return abs(width), abs(height)


def _webp(content: bytes) -> Size:
    kind = content[12:16]
    if kind == b"VP8X":
        return (
            1 + int.from_bytes(content[24:27], "little"),
            1 + int.from_bytes(content[27:30], "little"),
        )
    if kind == b"VP8L":
        bits = int.from_bytes(content[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = unpack_from("<HH", content, 26)
    return width & 0x3FFF, height & 0x3FFF


def _tiff(content: bytes) -> Size:
    order = "<" if content[:2] == b"II" else ">"
    large = content[2:4] in (b"+\0", b"\0+")
    start, count, entry, value = ("Q", "Q", 20, 12) if large else ("I", "H", 12, 8)
    (place,) = unpack_from(order + start, content, 8 if large else 4)
    (number,) = unpack_from(order + count, content, place)
    if number > _MOST:
        raise NotAnImageError("the TIFF image has too many tags")
    place += 8 if large else 2
    sizes: dict[int, int] = {}
    for at in range(place, min(place + entry * number, len(content)), entry):
        tag, kind = unpack_from(order + "HH", content, at)
        if tag in (_WIDTH, _HEIGHT):
            (sizes[tag],) = unpack_from(order + _TIFF_SIZES[kind], content, at + value)
    return sizes[_WIDTH], sizes[_HEIGHT]


_READERS: dict[str, Callable[[bytes], Size]] = {
    "PNG": _png,
    "JPEG": _jpeg,
    "GIF": _gif,
    "BMP": _bmp,
    "WEBP": _webp,
    "TIFF": _tiff,
}
