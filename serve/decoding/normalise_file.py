"""From the bytes of an image file to the 28x28 image that the models know."""

from __future__ import annotations

from serve.decoding.decode import decode
from serve.imaging.normalise import normalise
from serve.imaging.placement import Grey


def normalise_file(content: bytes, *, max_pixels: int) -> Grey:
    """(28, 28) uint8, as the models know digits, of the bytes of an image file.

    Raises:
        NotAnImageError, UnsupportedImageError, TooManyPixelsError: as `decode`.
        NoDigitError: the picture is empty.
    """
    return normalise(decode(content, max_pixels=max_pixels))
