"""Read the header of an image file: its format and size, before any pixel is decoded.

A decompression bomb is a small file of very many pixels, so sizes are checked first. Pillow's lazy
`Image.open` reads the header. Two formats are parsed here before it, for safety and not for speed.
On opening a PNG, Pillow unpacks its texts and allocates an animation's canvas. On opening a JPEG,
it parses all EXIF tags. Parsing a header here saves 0.02 ms (PNG, JPEG, WebP, GIF) to 0.1 ms (BMP,
TIFF), always less than 5 % of an answer.
"""

from __future__ import annotations

import math
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from struct import unpack_from

from PIL import Image, ImageFile

from serve.imaging.errors import ImageError, NotAnImageError, TooManyPixelsError

Size = tuple[int, int]  # width, height

# A header that needs more reads is refused, because it may be read in the event loop. So many reads
# take Pillow 20 ms at most. The longest real headers, a GIF's XMP metadata, need about a thousand.
MAX_READS = 5_000
MAX_SEGMENTS = 20_000  # of a JPEG: 10 ms; real files have a few hundred at most

_SIGNATURES = {
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JPEG": (b"\xff\xd8\xff",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "BMP": (b"BM",),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
}

_PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"

_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd8]")  # of a JPEG segment, or of the end
_END, _SCAN = 0xD9, 0xDA
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15, which hold the size
_GAP = 2**16  # stray bytes to skip between segments, as libjpeg does

_PILLOW = r"PIL\."
_OF_PILLOW = ("ignore", None, Warning, re.compile(_PILLOW), 0)  # an entry of warnings.filters


class _HeaderFile(BytesIO):
    """A file in memory that allows MAX_READS reads, until `lift` removes the limit."""

    _left = MAX_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise OSError("the header has too many parts")
        return super().read(size)

    def lift(self) -> None:
        self._left = sys.maxsize


def format_of(content: bytes) -> str | None:
    """Return Pillow's name of the format, by the first bytes; None if it is not supported."""
    for name, signatures in _SIGNATURES.items():
        if content.startswith(signatures):
            return name
    return "WEBP" if content[:4] == b"RIFF" and content[8:12] == b"WEBP" else None


def declared_pixels(content: bytes, max_pixels: int) -> int:
    """Return the number of pixels that the file declares; 0 if it will be refused at once."""
    file_format = format_of(content)
    if not file_format:
        return 0
    try:
        with image_errors(file_format, max_pixels):
            if look := _LOOKS.get(file_format):
                size = look(content)
                check_size(size, max_pixels)
            else:
                size = open_image(content, file_format, max_pixels).size
    except ImageError:
        return 0
    return math.prod(size)


def is_small_png(content: bytes, max_pixels: int) -> bool:
    """Return True for a PNG of few bytes that declares few pixels."""
    return (
        len(content) <= 2 * max_pixels
        and content.startswith(_PNG_START)
        and 0 < math.prod(_png_size(content.ljust(24, b"\0"))) <= max_pixels
    )


def open_image(content: bytes, file_format: str, max_pixels: int) -> ImageFile.ImageFile:
    """Check the declared size, then open the image lazily.

    Call it within `image_errors`.
    """
    declared = None
    if look := _LOOKS.get(file_format):
        declared = look(content)
        check_size(declared, max_pixels)
    # Keep Pillow's warnings of odd files off stderr, and from becoming errors under -W error.
    # `catch_warnings` is not safe with threads. Other code may have reset the filters.
    if not warnings.filters or warnings.filters[0] != _OF_PILLOW:
        warnings.filterwarnings("ignore", module=_PILLOW)
    # Pillow refuses more than twice this. Some of its plugins allocate before we see the size.
    Image.MAX_IMAGE_PIXELS = -(-max_pixels // 2)
    # A PNG's header is read in order: one of few bytes needs no count of reads, which costs 2 %.
    short = file_format == "PNG" and len(content) <= MAX_READS
    file = BytesIO(content) if short else _HeaderFile(content)
    image = Image.open(file, formats=(file_format,))
    if isinstance(file, _HeaderFile):
        file.lift()
    if declared and math.prod(image.size) > math.prod(declared):
        raise NotAnImageError(f"the {file_format} image declares two sizes")
    check_size(image.size, max_pixels)
    return image


@contextmanager
def image_errors(file_format: str, max_pixels: int) -> Iterator[None]:
    """Turn any exception of Pillow for a corrupt file into an ImageError."""
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise TooManyPixelsError(f"the image has more than {max_pixels:,} pixels") from error
    except Exception as error:
        raise NotAnImageError(f"the {file_format} image is damaged") from error


def check_size(size: Size, max_pixels: int) -> None:
    """Raise TooManyPixelsError if the size has more pixels than that."""
    pixels = math.prod(size)
    if pixels > max_pixels:
        width, height = size
        raise TooManyPixelsError(
            f"{width} x {height} is {pixels:,} pixels, more than {max_pixels:,}"
        )


def count_scans(content: bytes) -> int:
    """Return the number of scans of a JPEG; bytes after its end do not count."""
    return sum(marker == _SCAN for marker, _ in _segments(content))


def _segments(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield the marker and offset of each JPEG segment up to the end, as libjpeg finds them."""
    found = _MARKER.search(content, 2, 2 + _GAP)
    for _ in range(MAX_SEGMENTS):
        if not found or content[found.end() - 1] == _END:
            return
        marker, place = content[found.end() - 1], found.end()
        yield marker, place
        after = place + int.from_bytes(content[place : place + 2])
        found = _MARKER.search(content, after, len(content) if marker == _SCAN else after + _GAP)
    raise NotAnImageError("the JPEG image has too many segments")


def _jpeg_size(content: bytes) -> Size:
    for marker, place in _segments(content):
        if marker in _FRAMES:
            height, width = unpack_from(">HH", content, place + 3)
            return width, height
        if marker == _SCAN:
            break
    raise NotAnImageError("the JPEG image is damaged")


def _png_size(content: bytes) -> Size:
    width, height = unpack_from(">II", content, 16)
    return width, height


_LOOKS: dict[str, Callable[[bytes], Size]] = {"PNG": _png_size, "JPEG": _jpeg_size}
