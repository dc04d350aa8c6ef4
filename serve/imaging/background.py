"""Background removal: subtract what the digit is drawn on, a plain level or paper in uneven light.

Numbers without a source beside them date from the first version. What a change of one does is shown
by `python -m bench.variants --split validation`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]  # (height, width), in grey levels
Mask = NDArray[np.bool_]

EVEN_LEVELS = 6.0  # grey levels by which a plain background may vary
EVEN_SHARE = 0.6  # least share of the border on a plain level; the digit may cover the rest
EXTREME, PLAIN_SHARE = 0.05, 0.45  # quantile of a plain level, and least share of the border on it
ROUGHNESS = 4.0  # the border of lit paper varies less than so many times its pixel noise
EDGE, TOP_HAT_EDGE = 0.2, 0.4  # threshold of ink, as shares of the strongest ink's strength
MIN_SIDE_OF_PHOTO = 24  # smaller pictures have too few pixels to tell light from noise


@dataclass(frozen=True)
class Ink:
    """Candidate ink: how much each pixel is above the background.

    `above`: (height, width) float32, in grey levels. `noise`: standard deviation of the background,
    in grey levels. `edge`: threshold between ink and background, as a share of the strongest ink.
    """

    above: Field
    noise: float
    edge: float


def remove_background(view: Field) -> tuple[Ink, Ink]:
    """Return what is brighter than the background, and what is darker; one of them is the digit.

    The background is estimated from the border. If the border is even, it is one level. If it
    changes smoothly, it is a quadratic surface fitted to the light. If there are shadows or other
    things, a top-hat transform keeps what is narrower than a sixth of the picture.
    """
    border = _border(view.shape)
    rim = view[border]
    level = quantile(rim, 0.5)
    small = min(view.shape) < MIN_SIDE_OF_PHOTO
    even = np.mean(np.abs(rim - level) <= EVEN_LEVELS) >= EVEN_SHARE
    if even:
        return _bright_and_dark(view - level, rim - level)
    if not small:
        difference = view - light(view, border)
        if _spread(difference[border]) <= max(EVEN_LEVELS, ROUGHNESS * fine_noise(view)):
            return _bright_and_dark(difference, difference[border])
    plain = _plain_level(view, border)
    if small or plain is not None:
        level = level if plain is None else plain
        return _bright_and_dark(view - level, rim - level)
    window = max(view.shape) // 6
    return _top_hat(view, window), _top_hat(-view, window)


def _plain_level(view: Field, border: Mask) -> float | None:
    """Return the picture's lowest or highest level if much of the border is plain and has it.

    So it is where a digit in a tight crop, or a band, covers much of the border.
    """
    if view.shape[1] < 2:
        return None
    rim = view[border]
    tolerance = max(EVEN_LEVELS, 3 * fine_noise(view))
    levels = quantile(view, EXTREME), quantile(view, 1 - EXTREME)
    shares = [float(np.mean(np.abs(rim - level) <= tolerance)) for level in levels]
    most = int(np.argmax(shares))
    return levels[most] if shares[most] >= PLAIN_SHARE else None


def quantile(values: Field, share: float) -> float:
    """Return a quantile without interpolation, ten times as fast as NumPy's for few values."""
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


def fine_noise(view: Field) -> float:
    """Return the standard deviation of the pixel noise, from differences of neighbours.

    1.05 = 1 / (sqrt(2) * 0.674): the median absolute difference of two normal values.
    """
    return quantile(np.abs(view[:, 1:] - view[:, :-1]), 0.5) * 1.05


def _bright_and_dark(difference: Field, rim: NDArray[np.float32]) -> tuple[Ink, Ink]:
    # From the smallest third of the deviations, because some of the border may be ink: of a normal
    # distribution a third lies within 0.43 standard deviations.
    noise = quantile(np.abs(rim), 0.33) / 0.43
    return Ink(difference, noise, EDGE), Ink(-difference, noise, EDGE)


def light(view: Field, paper: Mask) -> Field:
    """Return the light as a quadratic surface: least squares, first on `paper` alone.

    Each round then fits all pixels that agree with the last surface.
    """
    height, width = view.shape
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1).astype(np.float32)
    step = max(1, min(view.shape) // 24)
    some, values = terms[::step, ::step].reshape(-1, 6), view[::step, ::step].ravel()
    used = paper[::step, ::step].ravel()
    for _ in range(4):
        surface = np.linalg.lstsq(some[used], values[used], rcond=None)[0]
        deviation = np.abs(values - some @ surface)
        used = deviation <= max(EVEN_LEVELS, 2.5 * quantile(deviation, 0.5))
    return (terms @ surface).astype(np.float32)


def _top_hat(view: Field, window: int) -> Ink:
    """Top-hat transform: return what is bright and narrower than the window.

    It removes edges of shadows, and of a sheet on a table. Source: Meyer, "Contrast feature
    extraction", 1977.
    """
    above = view - dilate(-dilate(-view, window), window)
    background = quantile(above, 0.5)
    noise = quantile(np.abs(above - background), 0.5) * 1.48  # median absolute deviation to sigma
    return Ink(above - background, noise, TOP_HAT_EDGE)


def dilate(view: Field, window: int) -> Field:
    """Return the grey dilation: the greatest value in a square window around each pixel."""
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
