"""What a model saw and said when it was evaluated: `reference.npz` of its bundle.

`evaluate` writes it, the service gives it away, the drift job compares with it what comes in.
"""

from __future__ import annotations

from io import BytesIO
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from serve.imaging.stroke_width import stroke_width

FILE = "reference.npz"
FEATURES = ("ink", "row", "column", "stroke")

_SIDE = 28
_MOST = 2_500  # images: 140 kB


class Reference(NamedTuple):
    """Of n images: the probabilities, (n, 10), and the features of the images, (n, 4)."""

    probabilities: NDArray[np.float32]
    features: NDArray[np.float32]


def features(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(n, 4) FEATURES of (n, 28, 28) images.

    The mean of the pixels, 0 to 1; in pixels the centre of mass and the width of the strokes. An
    image without ink has its centre in the middle, and strokes of no width.
    """
    mass = images.sum((1, 2), dtype=np.float64)
    some = np.maximum(mass, 1)
    place = np.arange(_SIDE)
    middle = np.where(mass > 0, 0, (_SIDE - 1) / 2)
    row = images.sum(2, dtype=np.float64) @ place / some + middle
    column = images.sum(1, dtype=np.float64) @ place / some + middle
    stroke = [stroke_width(image) if image.any() else 0.0 for image in images]
    ink = mass / (255 * _SIDE * _SIDE)
    return np.stack([ink, row, column, np.array(stroke)], axis=1).astype(np.float32)


def sample_indices(images: int) -> NDArray[np.intp]:
    """Which of so many evaluated images are in the reference: of many, some spread evenly."""
    n = min(images, _MOST)
    return np.arange(n) * images // n


def build(images: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> Reference:
    """The reference from what was evaluated."""
    index = sample_indices(len(images))
    return Reference(probabilities[index], features(images[index]))


def read(content: bytes) -> Reference:
    """The reference in the bytes of a file.

    Raises:
        ValueError: they are no such file.
    """
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
