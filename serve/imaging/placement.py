"""Place a digit's ink in 28x28 as MNIST does.

The bounding box is scaled to 20 pixels, keeping the aspect ratio. Then it is moved by whole pixels
until its centre of mass is at the centre (LeCun et al., "Gradient-Based Learning Applied to
Document Recognition", 1998, section III.A).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from serve.imaging.errors import NoDigitError

Grey = NDArray[np.uint8]  # (height, width)
Box = tuple[int, int, int, int]  # top, left, bottom, right, the last two exclusive

SIDE = 28  # of MNIST's images
BOX = 20  # longest side of MNIST's digits, in pixels
CENTRE = 14  # the centres of mass of all of MNIST's training images lie within half a pixel of it
INK_LEVEL = 25  # of 255: fainter pixels, the blur around strokes, do not widen the bounding box
IMPULSE, IMPULSES = 128, 0.05  # grey levels from the median of 3x3; share of the pixels
STRIPE = 0.85  # of an edge's pixels that contrast with the picture
FINE = 80  # longest side at which strokes are sharpened or widened: a step is half a final pixel

_COORDINATES = np.arange(SIDE, dtype=np.float32)
_ONES = np.ones(SIDE, np.float32)


def normalised_box(image: Grey) -> Box | None:
    """Return the ink's bounding box if the (28, 28) image is normalised: MNIST could hold it."""
    edges = (image[0], image[-1], image[:, 0], image[:, -1])
    if sum(map(np.count_nonzero, edges)) > SIDE:
        return None
    pixels = image.astype(np.float32)  # for BLAS, which is faster; sums of whole numbers are exact
    ends = []
    for mass in (_ONES @ pixels, pixels @ _ONES):
        inked = mass.nonzero()[0]
        if not len(inked) or abs(float(mass @ _COORDINATES) / float(mass @ _ONES) - CENTRE) > 1:
            return None
        ends.append((int(inked[0]), int(inked[-1]) + 1))
    (left, right), (top, bottom) = ends
    if BOX - 1 <= max(right - left, bottom - top) <= BOX and image.max() >= 128:
        return top, left, bottom, right
    return None


def normalised_boxes(images: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Return `normalised_box` of (n, 28, 28) images: where there is one, (n,), and it, (n, 4).

    The same rule in array calls over all images, which for a single one take three times as long.
    """
    edges = (images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1])
    normalised = sum(np.count_nonzero(edge, axis=1) for edge in edges) <= SIDE
    normalised &= images.max(axis=(1, 2)) >= 128
    ends = []
    for axis in (2, 1):
        mass = images.sum(axis=axis, dtype=np.int64)
        inked = mass > 0
        total = np.maximum(mass.sum(axis=1), 1)
        normalised &= np.abs(mass @ np.arange(SIDE) / total - CENTRE) <= 1
        ends.append((inked.argmax(axis=1), SIDE - inked[:, ::-1].argmax(axis=1)))
    (top, bottom), (left, right) = ends
    longest = np.maximum(bottom - top, right - left)
    normalised &= (longest >= BOX - 1) & (longest <= BOX)
    return normalised, np.stack([top, left, bottom, right], axis=1)


def is_disturbed(image: Grey, box: Box) -> bool:
    """Whether the (28, 28) image holds lines, stripes or impulses beside what MNIST would hold.

    Then the box of its ink says nothing of the digit, which is best left where it is. `box`: that
    of all ink that was found; a large digit is seldom wider than tall.
    """
    height, width = box[2] - box[0], box[3] - box[1]
    if width > max(BOX + 2, height):
        return True
    if np.ptp(image[0]) == np.ptp(image[-1]) == 0 and _even_sides(image):
        return False
    isolated = np.abs(image.astype(np.int16) - _median(image)) > IMPULSE
    if np.count_nonzero(isolated) > IMPULSES * image.size:
        return True
    return _is_striped(image)


def _even_sides(image: Grey) -> bool:
    even = np.ptp(image[:, 0]) == np.ptp(image[:, -1]) == 0
    return bool(even and image[0, 0] == image[-1, -1])


def paper_level(image: Grey) -> float:
    """Return the level of a (28, 28) image's paper; stripes along its edges count for nothing."""
    return float(np.median(_middle(image) if _is_striped(image) else image))


def _is_striped(image: Grey) -> bool:
    """Whether one edge contrasts with the middle, and another edge does not."""
    edges = (image[0], image[-1], image[:, 0], image[:, -1])
    level = np.median(_middle(image))
    shares = [np.mean(np.abs(edge - level) > IMPULSE) for edge in edges]
    return bool(max(shares) > STRIPE > min(shares))


def _middle(image: Grey) -> Grey:
    quarter = SIDE // 4
    return image[quarter:-quarter, quarter:-quarter]


def _median(image: Grey) -> Grey:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.MedianFilter(3)))


def has_mnist_size(ink: Grey) -> bool:
    """Whether the digit is as large as MNIST's, within two pixels, and needs no scaling."""
    return bool(BOX - 2 <= max(ink.shape) <= BOX)


def place_digit(digit: Grey) -> Grey:
    """Return (28, 28) uint8: the whole digit, its centre of mass at the centre within a pixel.

    A digit that is heavy at one end is made smaller, so that it fits.

    Raises:
        NoDigitError: no ink is left at 28x28.
    """
    box = max(digit.shape) if has_mnist_size(digit) else BOX
    scaled = _scaled(digit, box)
    while max(_excess(scaled, axis) for axis in (0, 1)) > 0.5:
        box -= 1
        scaled = _scaled(digit, box)
    return _pasted(scaled)


def centre_digit(grey: Grey) -> Grey:
    """Return (28, 28) uint8 of a clean (height, width) digit of a data set, bright on black.

    All of its ink counts. Its box is 20 pixels, even if the centre of mass then misses the centre.
    MNIST's own images pass unchanged.

    Raises:
        NoDigitError: there is no ink, or none is left at 28x28.
    """
    return _pasted(_scaled(crop(grey), BOX))


def crop(ink: Grey, threshold: int = 0) -> Grey:
    """Return the ink in its bounding box, of (h, w) uint8 ink on black; as `bounding_box`."""
    top, left, bottom, right = bounding_box(ink, threshold)
    return ink[top:bottom, left:right]


def bounding_box(ink: Grey, threshold: int = 0) -> Box:
    """Return the bounding box of all pixels above the threshold.

    Raises:
        NoDigitError: there are none.
    """
    rows, columns = (np.flatnonzero((ink > threshold).any(axis)) for axis in (1, 0))
    if not len(rows):
        raise NoDigitError("no digit found")
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def _scaled(digit: Grey, box: int) -> Grey:
    """Return the digit with a longest side of `box` pixels."""
    height, width = digit.shape
    scale = box / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    scaled = np.asarray(Image.fromarray(digit).resize(size, Image.Resampling.LANCZOS))
    if not scaled.any():
        raise NoDigitError("no digit found")
    return scaled


def _start(digit: Grey, axis: int) -> float:
    """Return the first row (axis 0) or column (axis 1) that centres the centre of mass."""
    mass = digit.sum(axis=1 - axis, dtype=np.int64)
    return CENTRE - float(mass @ np.arange(len(mass)) / mass.sum())


def _excess(digit: Grey, axis: int) -> float:
    """Return by how many pixels a centred digit would stick out of the image."""
    start = _start(digit, axis)
    return max(-start, start - (SIDE - int(digit.shape[axis])))


def _pasted(digit: Grey) -> Grey:
    top, left = (
        int(np.clip(round(_start(digit, axis)), 0, SIDE - digit.shape[axis])) for axis in (0, 1)
    )
    image = np.zeros((SIDE, SIDE), np.uint8)
    image[top : top + digit.shape[0], left : left + digit.shape[1]] = digit
    return image
