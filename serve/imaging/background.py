"""The ground that a digit is drawn on, taken away: paper under any light, or a plain level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]  # (height, width), in grey levels
Mask = NDArray[np.bool_]

_EVEN = 6.0  # grey levels by which ground may vary and still be of one level
_MOST = 0.6  # share of a border that is ground, even if the digit runs out of the picture
_ROUGH = 4.0  # times the noise from pixel to pixel: what varies more is light, or things
_EDGE, _EDGE_AMONG_OTHERS = 0.2, 0.4  # shares of the strongest ink's strength
_SMALL = 24  # shortest side of a picture whose light can be told from its noise


@dataclass(frozen=True)
class Ink:
    """What may be ink: how much each pixel is above its ground, and the noise on the ground.

    `above`: float32, (height, width), in grey levels. `noise`: a standard deviation in the same.
    `edge`: share of the strongest ink's strength at which ink is told from ground.
    """

    above: Field
    noise: float
    edge: float


def remove_background(view: Field) -> tuple[Ink, Ink]:
    """What is brighter than the ground, and what is darker: one of them is the digit.

    The ground is the level of the border; or, where that is uneven, a surface fitted to the border
    and all that goes with it; or, where there are shadows or other things, what is left without
    anything narrower than a sixth of the picture.
    """
    border = _border(view.shape)
    level = quantile(view[border], 0.5)
    even = np.mean(np.abs(view[border] - level) <= _EVEN) >= _MOST
    if even or min(view.shape) < _SMALL:
        return _both_sides(view - level, border)
    difference = view - _slope(view, border)
    if _spread(difference[border]) <= max(_EVEN, _ROUGH * _fine_noise(view)):
        return _both_sides(difference, border)
    window = max(view.shape) // 6
    return _hat(view, window), _hat(-view, window)


def quantile(values: Field, share: float) -> float:
    """A value that the share of all is less than; ten times as fast as NumPy's for a few."""
    flat = values.ravel()
    place = int(share * (flat.size - 1))
    return float(np.partition(flat, place)[place])


def _border(shape: tuple[int, ...]) -> Mask:
    rim = max(1, min(shape) // 20)
    border = np.ones(shape, bool)
    border[rim:-rim, rim:-rim] = False
    return border


def _spread(values: NDArray[np.float32]) -> float:
    return quantile(values, 0.9) - quantile(values, 0.1)


def _fine_noise(view: Field) -> float:
    """Standard deviation of the noise, from neighbours: light and things change little there."""
    return quantile(np.abs(view[:, 1:] - view[:, :-1]), 0.5) * 1.05


def _both_sides(difference: Field, border: Mask) -> tuple[Ink, Ink]:
    # The third of the deviations that is smallest: some of the border may be ink.
    noise = quantile(np.abs(difference[border]), 0.33) / 0.43
    return Ink(difference, noise, _EDGE), Ink(-difference, noise, _EDGE)


def _slope(view: Field, border: Mask) -> Field:
    """The quadratic surface of the light, fitted to the border, then to all that agrees with it."""
    height, width = view.shape
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1).astype(np.float32)
    step = max(1, min(view.shape) // 24)
    some, values = terms[::step, ::step].reshape(-1, 6), view[::step, ::step].ravel()
    used = border[::step, ::step].ravel()
    for _ in range(4):
        surface = np.linalg.lstsq(some[used], values[used], rcond=None)[0]
        deviation = np.abs(values - some @ surface)
        used = deviation <= max(_EVEN, 2.5 * quantile(deviation, 0.5))
    return (terms @ surface).astype(np.float32)


def _hat(view: Field, window: int) -> Ink:
    """What is brighter than all around it and narrower than the window: a top-hat transform.

    Edges of shadows, and of a sheet on a table, are no part of it. After Meyer, "Contrast feature
    extraction", 1977.
    """
    above = view - _greatest(-_greatest(-view, window), window)
    ground = quantile(above, 0.5)
    noise = quantile(np.abs(above - ground), 0.5) * 1.48
    return Ink(above - ground, noise, _EDGE_AMONG_OTHERS)


def _greatest(view: Field, window: int) -> Field:
    """The greatest value within half a window of each pixel, in a square."""
    half = window // 2
    for axis in (0, 1):
        pad = [(half, half) if along == axis else (0, 0) for along in (0, 1)]
        line = np.moveaxis(np.pad(view, pad, mode="edge"), axis, 0)
        reach = 1
        while reach < 2 * half + 1:  # twice as far each time
            step = min(reach, 2 * half + 1 - reach)
            line = np.maximum(line[:-step], line[step:])
            reach += step
        view = np.moveaxis(line, 0, axis)
    return view
