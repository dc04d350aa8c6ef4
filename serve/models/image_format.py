"""Image format: size and labels of a model's images, which decide how answers are kept."""

from __future__ import annotations

import hashlib
import math
from typing import NamedTuple

from serve.models.predictor import Predictor

Label = int | str  # of a class, as answers name it


class ImageFormat(NamedTuple):
    """Height, width and channels of images, and the labels in the order of the probabilities."""

    shape: tuple[int, int, int]
    labels: tuple[Label, ...]

    @classmethod
    def of(cls, predictor: Predictor) -> ImageFormat:
        """Return that of a model."""
        return cls(predictor.preparation.shape, tuple(predictor.classes))

    @property
    def sides(self) -> tuple[int, ...]:
        """The shape of the arrays: images of one channel have no axis for it."""
        return self.shape[:2] if self.shape[2] == 1 else self.shape

    @property
    def size(self) -> int:
        """Bytes of an image."""
        return math.prod(self.shape)

    @property
    def name(self) -> str:
        """A name for files and tables: the size alone, such as `32x32x3`."""
        return "x".join(map(str, self.shape))

    @property
    def digest(self) -> str:
        """A short digest of size and labels."""
        return hashlib.sha256(repr(tuple(self)).encode()).hexdigest()[:12]


DIGITS = ImageFormat((28, 28, 1), tuple(range(10)))
