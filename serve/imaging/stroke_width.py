"""The width of a digit's strokes, brought near that of MNIST's."""

from __future__ import annotations

import numpy as np
from PIL import Image

from serve.imaging.placement import BOX, Grey, crop, has_mnist_size

# In pixels of a digit with a longest side of BOX. Nine in ten of MNIST's training images lie in the
# first two; what does not is brought to the nearer of the other two.
_THIN, _THICK = 1.8, 3.6
_THINNEST, _THICKEST = 2.2, 3.0
# All of them lie between these: so much is left alone in a digit of MNIST's size.
_HAIR, _BLOT = 1.15, 7.8

_DARK = 25  # grey levels above which ink belongs to the box of a digit
_FINE = 80  # longest side at which strokes are changed: a step is half a pixel of MNIST's


def stroke_width(ink: Grey) -> float:
    """Of (h, w) ink on black, in pixels: twice the area of the ink over the length of its edges.

    The length is the total variation, so blur changes nothing.
    """
    padded = np.pad(ink.astype(np.float32), 1)
    down, across = np.diff(padded, axis=0)[:, 1:], np.diff(padded, axis=1)[1:]
    edges = np.sqrt(down * down + across * across).sum()
    return float(2 * padded.sum() / edges)


def normalise_stroke_width(ink: Grey) -> Grey:
    """The ink as it is, or with strokes of a width that is usual in MNIST."""
    width = stroke_width(ink) * BOX / max(ink.shape)
    thin, thick = (_HAIR, _BLOT) if has_mnist_size(ink) else (_THIN, _THICK)
    if thin <= width <= thick:
        return ink
    thicker = width < thin
    steps = round(abs((_THINNEST if thicker else _THICKEST) - width) * _FINE / BOX / 2)
    fine = np.pad(_fine(ink), steps + 1 if thicker else 1)
    for step in range(steps):
        changed = _step(fine, np.maximum if thicker else np.minimum, corners=step % 2 == 1)
        if changed.max() < 128:
            break
        fine = changed
    return crop(fine, _DARK)


def _fine(ink: Grey) -> Grey:
    """Of _FINE pixels, the strongest ink 255."""
    scale = _FINE / max(ink.shape)
    size = (max(1, round(ink.shape[1] * scale)), max(1, round(ink.shape[0] * scale)))
    fine = np.asarray(Image.fromarray(ink).resize(size, Image.Resampling.BICUBIC))
    return (fine * np.float32(255 / max(1, fine.max()))).astype(np.uint8)


def _step(ink: Grey, of: np.ufunc, *, corners: bool) -> Grey:
    """The greatest or least of each pixel and its four, or eight, neighbours."""
    changed = ink.copy()
    rows = changed if corners else ink
    of(changed[1:], ink[:-1], out=changed[1:])
    of(changed[:-1], ink[1:], out=changed[:-1])
    rows = rows.copy()
    of(changed[:, 1:], rows[:, :-1], out=changed[:, 1:])
    of(changed[:, :-1], rows[:, 1:], out=changed[:, :-1])
    return changed
