"""The digit's ink placed in 28x28 as MNIST's is.

Its box is scaled to 20 pixels, keeping its aspect ratio, and moved by whole pixels until its centre
of mass is the image's (LeCun et al., "Gradient-Based Learning Applied to Document Recognition",
1998, section III.A). The pipeline makes data sets with it: it imports nothing that reads files.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serve.imaging.errors import NoDigitError

Grey = NDArray[np.uint8]  # (height, width)

SIDE = 28
BOX = 20  # longest side of the digit, in pixels
# Where MNIST's centres of mass lie: all of its training images within half a pixel of it.
CENTRE = 14

_PLACES = np.arange(SIDE)


def is_normalised(image: Grey) -> bool:
    """Whether MNIST could hold the (28, 28) image."""
    if np.count_nonzero(image[[0, -1]]) + np.count_nonzero(image[:, [0, -1]]) > SIDE:
        return False
    longest = 0
    for mass in (image.sum(axis=0), image.sum(axis=1)):
        inked = mass.nonzero()[0]
        if not len(inked) or abs(mass @ _PLACES / mass.sum() - CENTRE) > 1:
            return False
        longest = max(longest, int(inked[-1] - inked[0]) + 1)
    return BOX - 1 <= longest <= BOX and int(image.max()) >= 128


def has_mnist_size(ink: Grey) -> bool:
    """Whether the digit needs no scaling, within a pixel or two."""
    return bool(BOX - 2 <= max(ink.shape) <= BOX)


def place_digit(digit: Grey) -> Grey:
    """(28, 28), all of the digit inside and its centre of mass at the centre, within a pixel.

    A digit that is heavy at an end is made smaller for it.

    Raises:
        NoDigitError: nothing is left of it at 28x28.
    """
    box = max(digit.shape) if has_mnist_size(digit) else BOX
    scaled = _scaled(digit, box)
    while max(_excess(scaled, axis) for axis in (0, 1)) > 0.5:
        box -= 1
        scaled = _scaled(digit, box)
    return _pasted(scaled)


def centre_digit(grey: Grey) -> Grey:
    """(28, 28) of a (height, width) picture, digit bright on black; MNIST's pass unchanged.

    All of the ink counts, and its box is 20 pixels even if the centre of mass must then be beside
    the centre: the digits that data sets hold are clean.

    Raises:
        NoDigitError: no pixel has ink, or so little that nothing is left of it at 28x28.
    """
    return _pasted(_scaled(crop(grey), BOX))


def crop(ink: Grey, threshold: int = 0) -> Grey:
    """The box of what is brighter than the threshold, in levels of (h, w) ink on black.

    Raises:
        NoDigitError: nothing is.
    """
    rows, columns = (np.flatnonzero((ink > threshold).any(axis)) for axis in (1, 0))
    if not len(rows):
        raise NoDigitError("no digit found")
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _scaled(digit: Grey, box: int) -> Grey:
    """With a longest side of `box` pixels."""
    height, width = digit.shape
    scale = box / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    scaled = np.asarray(Image.fromarray(digit).resize(size, Image.Resampling.LANCZOS))
    if not scaled.any():
        raise NoDigitError("no digit found")
    return scaled


def _start(digit: Grey, axis: int) -> float:
    """First row (axis 0) or column (axis 1), so that the centre of mass is the image's."""
    mass = digit.sum(axis=1 - axis, dtype=np.int64)
    return CENTRE - float(mass @ np.arange(len(mass)) / mass.sum())


def _excess(digit: Grey, axis: int) -> float:
    """By how much the digit must be beside its place, for all of it to be inside."""
    start = _start(digit, axis)
    return max(-start, start - (SIDE - int(digit.shape[axis])))


def _pasted(digit: Grey) -> Grey:
    top, left = (
        int(np.clip(round(_start(digit, axis)), 0, SIDE - digit.shape[axis])) for axis in (0, 1)
    )
    image = np.zeros((SIDE, SIDE), np.uint8)
    image[top : top + digit.shape[0], left : left + digit.shape[1]] = digit
    return image
