"""Reference sample for data drift, `reference.npz` of a bundle: images and answers of evaluation.

`evaluate` writes it and the service hands it out. The drift job compares recent requests with it.
"""

from __future__ import annotations

from io import BytesIO
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from serve.imaging.stroke_width import stroke_width

FILE = "reference.npz"
FEATURES = ("ink", "row", "column", "stroke")  # the last of grey images alone

MAX_IMAGES = 2_500  # 140 kB, which the service sends on each run of the drift job


class Reference(NamedTuple):
    """Probabilities, (n, classes), and image features, (n, 4 or 3), of n evaluated images."""

    probabilities: NDArray[np.float32]
    features: NDArray[np.float32]


def features(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the FEATURES, float32, of uint8 images: (n, 4) of (n, h, w), (n, 3) of (n, h, w, 3).

    They are the mean of the pixels (0 to 1), the centre of mass (row and column, in pixels) and the
    stroke width (pixels) of grey images. The mass of a colour is the mean of its channels. An image
    without ink has its centre in the middle, and stroke width 0.
    """
    grey = images.ndim == 3
    levels = images if grey else images.mean(axis=3)
    height, width = levels.shape[1:]
    mass = levels.sum((1, 2), dtype=np.float64)
    some = np.maximum(mass, 1)
    nothing = mass == 0
    row = levels.sum(2, dtype=np.float64) @ np.arange(height) / some + nothing * (height - 1) / 2
    column = levels.sum(1, dtype=np.float64) @ np.arange(width) / some + nothing * (width - 1) / 2
    found = [mass / (255 * height * width), row, column]
    if grey:
        found.append(np.array([stroke_width(each) if each.any() else 0.0 for each in levels]))
    return np.stack(found, axis=1).astype(np.float32)


def sample_indices(images: int) -> NDArray[np.intp]:
    """Return the indices of the images that are in the reference, evenly spread over all."""
    n = min(images, MAX_IMAGES)
    return np.arange(n) * images // n


def build(images: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> Reference:
    """Build the reference from the evaluated images and their (n, classes) probabilities."""
    index = sample_indices(len(images))
    return Reference(probabilities[index], features(images[index]))


def read(content: bytes) -> Reference:
    """Read the reference from the bytes of a file; ValueError if they are not such a file."""
    try:
        with np.load(BytesIO(content), allow_pickle=False) as arrays:
            found = Reference(arrays["probabilities"], arrays["features"])
    except (OSError, KeyError, ValueError, EOFError, BadZipFile) as error:
        raise ValueError(f"no {FILE}: {error}") from error
    probabilities, features = (part.shape for part in found)
    known = [(probabilities[0], columns) for columns in (len(FEATURES), len(FEATURES) - 1)]
    if len(probabilities) != 2 or min(probabilities) < 1 or features not in known:
        raise ValueError(f"no {FILE}: its arrays have other shapes")
    if not all(part.dtype == np.float32 and np.isfinite(part).all() for part in found):
        raise ValueError(f"no {FILE}: its arrays hold what is no number")
    return found
