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

from PIL import AvifImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin

from serve.decoding import jpeg, png
from serve.decoding.limits import (
    MAX_WHOLE_PIXELS,
    Size,
    check_size,
    file_limit,
    format_limit,
)
from serve.imaging.errors import ImageError, NotAnImageError, TooManyPixelsError

# A header that needs more reads is refused, because it may be read in the event loop. So many reads
# take Pillow 20 ms at most. The longest real headers, a GIF's XMP metadata, need about a thousand.
MAX_READS = 5_000

_SIGNATURES = {
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JPEG": (b"\xff\xd8\xff",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "BMP": (b"BM",),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
}

_BRANDS_END = 256  # bytes; real files name about ten brands

_PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"

AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # per picture; the service reads several at once

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
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    return "AVIF" if content[4:8] == b"ftyp" and _is_avif(content) else None


def _is_avif(content: bytes) -> bool:
    """Return whether an ISO base media file names AVIF among its brands; HEIC names others."""
    brands = content[8 : min(int.from_bytes(content[:4]), _BRANDS_END)]
    return not {b"avif", b"avis"}.isdisjoint(brands[i : i + 4] for i in range(0, len(brands), 4))


def declared_pixels(content: bytes, max_pixels: int) -> int:
    """Return the number of pixels that the file declares; 0 if it will be refused at once."""
    file_format = format_of(content)
    if not file_format:
        return 0
    max_pixels = format_limit(file_format, max_pixels)
    try:
        with image_errors(file_format, max_pixels):
            size = _declared(content, file_format, max_pixels)
            return math.prod(size or open_image(content, file_format, max_pixels).size)
    except ImageError:
        return 0


def is_small_png(content: bytes, max_pixels: int) -> bool:
    """Return True for a PNG of few bytes that declares few pixels."""
    return (
        len(content) <= 2 * max_pixels
        and content.startswith(_PNG_START)
        and 0 < math.prod(png.size(content.ljust(24, b"\0"))) <= max_pixels
    )


def open_image(content: bytes, file_format: str, max_pixels: int) -> ImageFile.ImageFile:
    """Check the declared size, then open the image lazily.

    Call it within `image_errors`.
    """
    declared = _declared(content, file_format, max_pixels)
    # Keep Pillow's warnings of odd files off stderr, and from becoming errors under -W error.
    # `catch_warnings` is not safe with threads. Other code may have reset the filters.
    if not warnings.filters or warnings.filters[0] != _OF_PILLOW:
        warnings.filterwarnings("ignore", module=_PILLOW)
    # Pillow refuses more than twice this. Some of its plugins allocate before we see the size.
    Image.MAX_IMAGE_PIXELS = -(-min(max_pixels, MAX_WHOLE_PIXELS) // 2)
    # A PNG's header is read in order: one of few bytes needs no count of reads, which costs 2 %.
    short = file_format == "PNG" and len(content) <= MAX_READS
    file = BytesIO(content) if short else _HeaderFile(content)
    plugin = _PLUGINS.get(file_format)  # which leaves its size to us
    image = plugin(file) if plugin else Image.open(file, formats=(file_format,))
    if isinstance(file, _HeaderFile):
        file.lift()
    if declared and math.prod(image.size) > math.prod(declared):
        raise NotAnImageError(f"the {file_format} image declares two sizes")
    if file_format == "AVIF" and (image.mode != "RGB" or getattr(image, "is_animated", False)):
        max_pixels = min(MAX_WHOLE_PIXELS, max_pixels)
    check_size(image.size, max_pixels)
    return image


def _declared(content: bytes, file_format: str, max_pixels: int) -> Size | None:
    """Return the size of a PNG or JPEG, which may have that many pixels; None for another."""
    if not (look := _LOOKS.get(file_format)):
        return None
    size = look(content)
    if math.prod(size) > min(MAX_WHOLE_PIXELS, max_pixels):  # few are so large
        check_size(size, file_limit(content, file_format, size, max_pixels))
    return size


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


_PLUGINS: dict[str, Callable[[BytesIO], ImageFile.ImageFile]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
}
_LOOKS: dict[str, Callable[[bytes], Size]] = {"PNG": png.size, "JPEG": jpeg.size}
