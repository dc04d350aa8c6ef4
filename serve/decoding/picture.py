"""A decoded picture: upright, and perhaps smaller than its file says."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serve.decoding.limits import Size
from serve.imaging.normalise import Normalised

Pixels = NDArray[np.uint8]  # (height, width) of grey, or (height, width, 3) of colours
Box = tuple[int, int, int, int]  # left, top, width, height in pixels

_ORIENTATION = 0x0112  # EXIF tag
_TURNS: dict[int, Callable[[Pixels], Pixels]] = {
    2: np.fliplr,
    3: lambda pixels: pixels[::-1, ::-1],
    4: np.flipud,
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}
_ON_ITS_SIDE = 5  # from this orientation on, width and height change places


class Picture(NamedTuple):
    """A decoded picture.

    `pixels`: uint8, reduced by a whole factor. `size`: its width and height before.
    """

    pixels: Pixels
    size: Size

    def upright(self, image: Image.Image) -> Picture:
        """Apply the EXIF orientation; Pillow has already applied and removed it for TIFF files."""
        if not image.info:
            return self
        with contextlib.suppress(Exception):  # corrupt metadata must not reject a sound picture
            orientation = image.getexif().get(_ORIENTATION, 1)
            if turn := _TURNS.get(orientation):
                size = self.size[::-1] if orientation >= _ON_ITS_SIDE else self.size
                return Picture(turn(self.pixels), size)
        return self

    def unreduced(self, box: Box) -> Box:
        """Return a box of `pixels` in those of the picture before it was reduced."""
        # A reduced side is rounded up, so the ratio is the factor or a little less.
        factor = round(max(self.size) / max(self.pixels.shape[:2]))
        if factor < 2:
            return box
        left, top, width, height = (side * factor for side in box)
        return left, top, min(width, self.size[0] - left), min(height, self.size[1] - top)


class Reading(NamedTuple):
    """What of an image file was read.

    `pixels`: uint8, the decoded picture. `normalised`: the models' input, and what of `pixels` it
    was made of. `box`: of that, in the pixels of the picture as it is seen.
    """

    pixels: Pixels
    normalised: Normalised
    box: Box
