"""Measure the width of a digit's strokes, and bring it near that of MNIST's."""

from __future__ import annotations

import numpy as np
from PIL import Image

from serve.imaging.placement import BOX, FINE, INK_LEVEL, Grey, crop, has_mnist_size

# Stroke widths, in pixels of a digit with a longest side of BOX.
THIN, THICK = 1.8, 3.6  # nine in ten of MNIST's training images lie between them
TARGET_OF_THIN, TARGET_OF_THICK = 2.2, 3.0  # other strokes are brought to the nearer of these
HAIR, BLOT = 1.15, 7.8  # all of MNIST's training images lie between them


def stroke_width(ink: Grey) -> float:
    """Return the mean stroke width of (h, w) uint8 ink on black, in pixels.

    It is twice the area of the ink over the length of its edges. The length is the total variation,
    which blur does not change.
    """
    padded = np.pad(ink.astype(np.float32), 1)
    down, across = np.diff(padded, axis=0)[:, 1:], np.diff(padded, axis=1)[1:]
    edges = np.sqrt(down * down + across * across).sum()
    return float(2 * padded.sum() / edges)


def normalise_stroke_width(ink: Grey) -> Grey:
    """Return the ink with strokes of a width that is usual in MNIST; usual ink is unchanged.

    Digits of MNIST's size may be MNIST's own and are only changed beyond HAIR and BLOT.
    """
    width = stroke_width(ink) * BOX / max(ink.shape)
    thin, thick = (HAIR, BLOT) if has_mnist_size(ink) else (THIN, THICK)
    if thin <= width <= thick:
        return ink
    thicker = width < thin
    steps = round(abs((TARGET_OF_THIN if thicker else TARGET_OF_THICK) - width) * FINE / BOX / 2)
    fine = np.pad(_fine(ink), steps + 1 if thicker else 1)
    for step in range(steps):
        changed = _step(fine, np.maximum if thicker else np.minimum, corners=step % 2 == 1)
        if changed.max() < 128:
            break
        fine = changed
    return crop(fine, INK_LEVEL)


def _fine(ink: Grey) -> Grey:
    """Return the ink with a longest side of FINE pixels, the strongest 255."""
    scale = FINE / max(ink.shape)
    size = (max(1, round(ink.shape[1] * scale)), max(1, round(ink.shape[0] * scale)))
    fine = np.asarray(Image.fromarray(ink).resize(size, Image.Resampling.BICUBIC))
    return (fine * np.float32(255 / max(1, fine.max()))).astype(np.uint8)


def _step(ink: Grey, of: np.ufunc, *, corners: bool) -> Grey:
    """Return the dilation (`np.maximum`) or erosion (`np.minimum`) by four or eight neighbours.

    Alternating the two gives nearly round strokes.
    """
    changed = ink.copy()
    rows = changed if corners else ink
    of(changed[1:], ink[:-1], out=changed[1:])
    of(changed[:-1], ink[1:], out=changed[:-1])
    rows = rows.copy()
    of(changed[:, 1:], rows[:, :-1], out=changed[:, 1:])
    of(changed[:, :-1], rows[:, 1:], out=changed[:, :-1])
    return changed
