"""A decoded picture: upright, and perhaps smaller than its file says."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from serve.decoding.limits import Size
from serve.imaging.normalise import Normalised
from serve.imaging.placement import Grey

Box = tuple[int, int, int, int]  # left, top, width, height in pixels

_ORIENTATION = 0x0112  # EXIF tag
_TURNS: dict[int, Callable[[Grey], Grey]] = {
    2: np.fliplr,
    3: lambda grey: grey[::-1, ::-1],
    4: np.flipud,
    5: np.transpose,
    6: lambda grey: np.rot90(grey, -1),
    7: lambda grey: grey[::-1, ::-1].T,
    8: np.rot90,
}
_ON_ITS_SIDE = 5  # from this orientation on, width and height change places


class Picture(NamedTuple):
    """A decoded picture.

    `grey`: (height, width) uint8, reduced by a whole factor. `size`: its width and height before.
    """

    grey: Grey
    size: Size

    def upright(self, image: Image.Image) -> Picture:
        """Apply the EXIF orientation; Pillow has already applied and removed it for TIFF files."""
        if not image.info:
            return self
        with contextlib.suppress(Exception):  # corrupt metadata must not reject a sound picture
            orientation = image.getexif().get(_ORIENTATION, 1)
            if turn := _TURNS.get(orientation):
                size = self.size[::-1] if orientation >= _ON_ITS_SIDE else self.size
                return Picture(turn(self.grey), size)
        return self

    def unreduced(self, box: Box) -> Box:
        """Return a box of `grey` in the pixels of the picture before it was reduced."""
        # A reduced side is rounded up, so the ratio is the factor or a little less.
        factor = round(max(self.size) / max(self.grey.shape))
        if factor < 2:
            return box
        left, top, width, height = (side * factor for side in box)
        return left, top, min(width, self.size[0] - left), min(height, self.size[1] - top)


class Reading(NamedTuple):
    """What of an image file was read.

    `grey`: (height, width) uint8, the decoded picture. `normalised`: the models' input, and what of
    `grey` it was made of. `box`: of that, in the pixels of the picture as it is seen.
    """

    grey: Grey
    normalised: Normalised
    box: Box
