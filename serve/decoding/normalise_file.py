"""Decode and normalise an image file into the 28x28 input of the models."""

from __future__ import annotations

from serve.decoding.decode import decode
from serve.imaging.normalise import normalise
from serve.imaging.placement import Grey


def normalise_file(content: bytes, *, max_pixels: int) -> Grey:
    """Return the models' input, (28, 28) uint8, from the bytes of an image file.

    Raises:
        NotAnImageError, UnsupportedImageError, TooManyPixelsError: as `decode`.
        NoDigitError: the picture is empty.
    """
    return normalise(decode(content, max_pixels=max_pixels))
