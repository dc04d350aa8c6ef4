"""Read the image files of a batch: small PNGs in a few calls, all others one by one."""

from collections.abc import Sequence

from serve.decoding.decode import read_file
from serve.decoding.digit_png import PIXELS, decode_digits
from serve.decoding.headers import declared_pixels
from serve.decoding.picture import Box, Pixels
from serve.imaging.errors import ImageError, TooManyPixelsError
from serve.imaging.normalise import normalise_all
from serve.imaging.preparation import DIGIT, Preparation

Read = tuple[Pixels, Box]


def within_limit(
    contents: Sequence[bytes | Exception], most: int
) -> tuple[list[bytes | Exception], int]:
    """Return the batch, with errors for files beyond `most` pixels in all, and its pixel count."""
    total, capped = 0, list(contents)
    for place, content in enumerate(contents):
        pixels = declared_pixels(content, most) if isinstance(content, bytes) else 0
        if total + pixels > most:
            capped[place] = TooManyPixelsError(
                f"with this picture the batch has more than {most:,} pixels: send it in another"
            )
        else:
            total += pixels
    return capped, total


def read_batch(
    contents: Sequence[bytes | Exception], *, max_pixels: int, preparation: Preparation
) -> list[Read | Exception]:
    """Return the model's input and the box of what was read of each image file, or its ImageError.

    These are what `read_file` returns, without the picture: all of them would be much memory.
    `contents` may hold exceptions, which are returned in their places.
    """
    small: dict[int, Read | ImageError] = {}
    if preparation.kind == DIGIT and max_pixels >= PIXELS:
        places, images = decode_digits(contents)
        small = dict(zip(places, normalise_all(images), strict=True))
    return [
        small[place] if place in small else _read(content, max_pixels, preparation)
        for place, content in enumerate(contents)
    ]


def _read(
    content: bytes | Exception, max_pixels: int, preparation: Preparation
) -> Read | Exception:
    if isinstance(content, Exception):
        return content
    try:
        reading = read_file(content, max_pixels=max_pixels, preparation=preparation)
    except ImageError as error:
        return error
    return reading.normalised.image, reading.box
