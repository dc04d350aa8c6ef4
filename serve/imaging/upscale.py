"""Upscale a tiny digit, as sharp as if it had been drawn large."""

from __future__ import annotations

import numpy as np
from PIL import Image

from serve.imaging.background import Field
from serve.imaging.placement import Grey

# From the first version; `bench.variants` has thumbnails of 8x8 and 14x14 to judge them by.
STEPS = 6
STEP_SIZE = 0.7
CONTRAST = 2.5  # gain at the edges of strokes


def upscale(ink: Grey, side: int) -> Grey:
    """Return (h, w) uint8 ink on black, at least `side` pixels long, with a margin of two old ones.

    A grey pixel is one that a sharp stroke covers in part. So the result is the picture of sharp
    strokes that becomes the given one when it is reduced. Iterative back-projection: Irani and
    Peleg, "Improving Resolution by Image Registration", 1991.
    """
    small = np.pad(ink, 2).astype(np.float32) / np.float32(255)
    factor = -(-side // max(ink.shape))
    large = _up(small, factor)
    for _ in range(STEPS):
        large += STEP_SIZE * _up(small - _down(_sharp(large), factor), factor)
    return np.rint(255 * _sharp(large)).astype(np.uint8)


def _up(small: Field, factor: int) -> Field:
    size = (small.shape[1] * factor, small.shape[0] * factor)
    return np.array(Image.fromarray(small).resize(size, Image.Resampling.LANCZOS))


def _down(large: Field, factor: int) -> Field:
    height, width = large.shape
    blocks = large.reshape(height // factor, factor, width // factor, factor)
    means: Field = blocks.mean(axis=(1, 3))
    return means


def _sharp(large: Field) -> Field:
    sharp: Field = np.clip((large - 0.5) * CONTRAST + 0.5, 0, 1)
    return sharp
