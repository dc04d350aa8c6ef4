"""Which colour to lay a transparent picture on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, ...]  # red, green, blue

_SAME = 48  # grey levels by which the brightness of paper, or of ink, may vary


def matte(pixels: NDArray[np.uint8], solid: NDArray[np.bool_]) -> Colour | None:
    """Return what was made transparent, by the edges of the ink, which are mixed with it.

    It is the colour of the transparent pixels if the edges are nearer to it than the rest. Else
    that colour means nothing, and it is white or black. None if the edges are not mixed.
    `pixels`: (height, width, 4).
    """
    clear = pixels[..., 3] == 0
    around = np.pad(clear, 1)
    edge = around[:-2, 1:-1] | around[2:, 1:-1] | around[1:-1, :-2] | around[1:-1, 2:]
    outer, inner = pixels[solid & edge, :3], pixels[solid & ~edge, :3]
    if not (outer.size and inner.size):
        return None
    key = np.median(pixels[clear, :3], axis=0)
    near, far = np.abs(outer - key).mean(), np.abs(inner - key).mean()
    if near < 0.9 * far:
        return tuple(int(channel) for channel in key)
    brighter = np.median(outer) - np.median(inner)
    if abs(brighter) < _SAME:
        return None
    return (255,) * 3 if brighter > 0 else (0,) * 3


def ground(solid: NDArray[np.uint8]) -> Colour:
    """Return the ground: black or white under ink alone, else the paper's colour.

    `solid`: (n, 4), the opaque pixels, without the half-transparent edges of strokes.
    """
    colours = solid[:, :3]
    brightness = colours.sum(axis=1, dtype=np.int16) // 3
    paper = np.median(colours, axis=0)
    others = np.abs(brightness - paper.sum() / 3) > _SAME
    if 0.01 < others.mean() < 0.5:
        return tuple(int(channel) for channel in paper)
    return (255,) * 3 if brightness.mean() < 128 else (0,) * 3
