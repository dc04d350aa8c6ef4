"""From a picture of a digit to the 28x28 image that the models know."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 28
BOX = 20  # longest side of the digit, in pixels
# Where MNIST's centres of mass lie: all of its training images within half a pixel of it.
CENTRE = 14


class NoDigitError(Exception):
    """The picture is empty."""


def centred(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """28x28 of a (height, width) picture, digit bright on black, normalised as MNIST was made.

    The ink's box is scaled to 20 pixels, keeping its aspect ratio, and moved by whole pixels until
    its centre of mass is the image's (LeCun et al., 1998; an image of MNIST passes unchanged).

    Raises:
        NoDigitError: no pixel has ink, or so little that nothing is left of it at 28x28.
    """
    digit = _scaled(_cropped(grey))
    if not digit.any():
        raise NoDigitError("the picture has no ink")
    image = np.zeros((SIDE, SIDE), np.uint8)
    top, left = (_offset(digit, axis) for axis in (0, 1))
    image[top : top + digit.shape[0], left : left + digit.shape[1]] = digit
    return image


def _cropped(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rows, columns = np.nonzero(grey)
    if not len(rows):
        raise NoDigitError("the picture has no ink")
    return grey[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def _scaled(digit: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = digit.shape
    scale = BOX / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(digit).resize(size, Image.Resampling.LANCZOS))


def _offset(digit: NDArray[np.uint8], axis: int) -> int:
    """First row (axis 0) or column (axis 1) of the digit, so that all of it stays inside."""
    mass = digit.sum(axis=1 - axis, dtype=np.int64)
    centre = float(mass @ np.arange(len(mass)) / mass.sum())
    return int(np.clip(round(CENTRE - centre), 0, SIDE - len(mass)))
