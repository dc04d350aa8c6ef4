"""How many pixels a file may have, by what its decoding holds in memory.

A JPEG's decoder hands on row after row, and a PNG is read in strips: they take little memory at any
size. Everything else is decoded whole, at up to 12 bytes per pixel.
"""

from __future__ import annotations

import math

from serve.decoding import jpeg, png
from serve.imaging.errors import TooManyPixelsError

Size = tuple[int, int]  # width, height

MAX_WHOLE_PIXELS = 16_000_000  # of a file that is decoded whole
MAX_AVIF_PIXELS = 24_000_000  # of one picture without transparency: 8 bytes per pixel
# Samples of 2 bytes that a JPEG's decoder stores for later scans, which take 144 MB. They are those
# of 48 megapixels with the usual reduced colours, or of 24 with full ones.
_MAX_SAMPLES = 72_000_000
_MAX_STRIP_PIXELS = 2_000_000  # of the rows that make one reduced row

# A large picture is reduced to a longer side of DETAIL to 2 * DETAIL pixels. That is enough for a
# digit of a fortieth of the picture.
DETAIL = 800

LARGE_PIXELS = 4_000_000  # from here on, pictures are decoded one at a time


def format_limit(file_format: str, max_pixels: int) -> int:
    """Return the most pixels that a file of this format may have, `max_pixels` at most."""
    if file_format in ("JPEG", "PNG"):
        return max_pixels
    return min(MAX_AVIF_PIXELS if file_format == "AVIF" else MAX_WHOLE_PIXELS, max_pixels)


def file_limit(content: bytes, file_format: str, size: Size, max_pixels: int) -> int:
    """Return the most pixels that this JPEG or PNG, which declares so large a size, may have."""
    whole = min(MAX_WHOLE_PIXELS, max_pixels)
    if file_format == "JPEG":
        samples = jpeg.stored_samples(content)
        if samples is None:
            return whole
        return min(int(_MAX_SAMPLES / samples), max_pixels) if samples else max_pixels
    width, height = size
    strip = width * min(height, max(size) // DETAIL)
    return max_pixels if png.is_plain(content) and strip <= _MAX_STRIP_PIXELS else whole


def check_size(size: Size, max_pixels: int) -> None:
    """Raise TooManyPixelsError if the size has more pixels than that."""
    pixels = math.prod(size)
    if pixels > max_pixels:
        width, height = size
        raise TooManyPixelsError(
            f"{width} x {height} is {pixels:,} pixels, more than {max_pixels:,}"
        )
