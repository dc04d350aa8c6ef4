"""Preparation: from a decoded picture to the image that a model expects, chosen by its bundle.

The pipeline prepares what it trains on and judges by the same code as the service.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serve.imaging.normalise import Normalised, normalise

Part = tuple[float, float, float, float]  # left, top, right, bottom
Pixels = NDArray[np.uint8]  # (h, w), or (h, w, 3) in colour

DIGIT, FIT, CROP = "digit", "fit", "crop"


class Preparation(NamedTuple):
    """How a picture becomes an image of `height` times `width` pixels and 1 or 3 channels.

    `kind`: DIGIT finds a digit and places it as MNIST was made. FIT scales the whole picture into
    the image and fills the rest with the level of its border. CROP scales it over the image and
    cuts off what hangs out at both sides. A picture of the image's size passes FIT and CROP
    unchanged.
    """

    kind: str
    height: int
    width: int
    channels: int

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> Preparation:
        """Return that of a bundle, whose `model.json` is `description`.

        Raises:
            KeyError: a key is missing.
            ValueError: it is of no known kind, or a digit's image is not 28x28.
        """
        given = description["input"]
        height, width, channels = map(int, given["shape"])
        found = cls(given.get("preparation", DIGIT), height, width, channels)
        if found.kind not in (DIGIT, FIT, CROP):
            raise ValueError(f"unknown preparation {found.kind!r}")
        if channels not in (1, 3) or (found.kind == DIGIT and found.shape != (28, 28, 1)):
            raise ValueError(f"no input of preparation {found.kind}: {found.shape}")
        return found

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return self.height, self.width, self.channels

    def __call__(self, picture: Pixels) -> Normalised:
        """Prepare a decoded picture: (h, w) uint8 for 1 channel, (h, w, 3) for 3.

        Raises:
            NoDigitError: DIGIT finds none.
        """
        if self.kind == DIGIT:
            return normalise(picture)
        return self._cropped(picture) if self.kind == CROP else self._fitted(picture)

    def _fitted(self, picture: Pixels) -> Normalised:
        height, width = picture.shape[:2]
        scale = min(self.height / height, self.width / width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        part = _resized(picture, (0, 0, width, height), size)
        border = (picture[0], picture[-1], picture[:, 0], picture[:, -1])
        level = np.median(np.concatenate(border), axis=0).astype(np.uint8)
        image = np.empty((self.height, self.width, *picture.shape[2:]), np.uint8)
        image[:] = level
        top, left = (self.height - size[1]) // 2, (self.width - size[0]) // 2
        image[top : top + size[1], left : left + size[0]] = part
        return Normalised(image, picture, (0, 0, width, height))

    def _cropped(self, picture: Pixels) -> Normalised:
        height, width = picture.shape[:2]
        scale = max(self.height / height, self.width / width)
        across, down = min(self.width / scale, width), min(self.height / scale, height)
        left, top = (width - across) / 2, (height - down) / 2
        image = _resized(picture, (left, top, left + across, top + down), (self.width, self.height))
        sides = (int(left), int(top), max(1, int(across)), max(1, int(down)))
        return Normalised(image, picture, sides)


def _resized(picture: Pixels, part: Part, size: tuple[int, int]) -> Pixels:
    """Return the part of the picture in `size`, smoothed if it is reduced."""
    if size == (picture.shape[1], picture.shape[0]):  # then the part is all of it
        return picture
    image = Image.fromarray(np.ascontiguousarray(picture))
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC, part))


DIGITS = Preparation(DIGIT, 28, 28, 1)  # as MNIST's images
