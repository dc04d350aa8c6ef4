"""Reference sample for data drift, `reference.npz` of a bundle: images and answers of evaluation.

`evaluate` writes it and the service hands it out. The drift job compares recent requests with it.
"""

from __future__ import annotations

from io import BytesIO
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from serve.imaging.placement import SIDE
from serve.imaging.stroke_width import stroke_width

FILE = "reference.npz"
FEATURES = ("ink", "row", "column", "stroke")

MAX_IMAGES = 2_500  # 140 kB, which the service sends on each run of the drift job


class Reference(NamedTuple):
    """Probabilities, (n, 10), and image features, (n, 4), of n evaluated images."""

    probabilities: NDArray[np.float32]
    features: NDArray[np.float32]


def features(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the FEATURES, (n, 4) float32, of (n, 28, 28) uint8 images.

    They are the mean of the pixels (0 to 1), the centre of mass (row and column, in pixels) and the
    stroke width (pixels). An image without ink has its centre in the middle, and stroke width 0.
    """
    mass = images.sum((1, 2), dtype=np.float64)
    some = np.maximum(mass, 1)
    place = np.arange(SIDE)
    middle = np.where(mass > 0, 0, (SIDE - 1) / 2)
    row = images.sum(2, dtype=np.float64) @ place / some + middle
    column = images.sum(1, dtype=np.float64) @ place / some + middle
    stroke = [stroke_width(image) if image.any() else 0.0 for image in images]
    ink = mass / (255 * SIDE * SIDE)
    return np.stack([ink, row, column, np.array(stroke)], axis=1).astype(np.float32)


def sample_indices(images: int) -> NDArray[np.intp]:
    """Return the indices of the images that are in the reference, evenly spread over all."""
    n = min(images, MAX_IMAGES)
    return np.arange(n) * images // n


def build(images: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> Reference:
    """Build the reference from the evaluated images and their (n, 10) probabilities."""
    index = sample_indices(len(images))
    return Reference(probabilities[index], features(images[index]))


def read(content: bytes) -> Reference:
    """Read the reference from the bytes of a file; ValueError if they are not such a file."""
    try:
        with np.load(BytesIO(content), allow_pickle=False) as arrays:
            found = Reference(arrays["probabilities"], arrays["features"])
    except (OSError, KeyError, ValueError, EOFError, BadZipFile) as error:
        raise ValueError(f"no {FILE}: {error}") from error
    n = len(found.probabilities)
    if not n or found.probabilities.shape != (n, 10) or found.features.shape != (n, len(FEATURES)):
        raise ValueError(f"no {FILE}: its arrays have other shapes")
    if not all(part.dtype == np.float32 and np.isfinite(part).all() for part in found):
        raise ValueError(f"no {FILE}: its arrays hold what is no number")
    return found
