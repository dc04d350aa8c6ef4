"""Corrupt images as MNIST-C does: fifteen kinds of noise, blur, movement, weather and drawn lines.

Mu and Gilmer, "MNIST-C: A Robustness Benchmark for Computer Vision", 2019. Each kind's parameters
are those of the default severity in `corruptions.py` of github.com/google-research/mnist-c. The
code is our own, for whole arrays, so the images are not MNIST-C's own ones but equally corrupted.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.data.dataset import SIDE, Images
from pipeline.robustness.canny import canny

Floats = NDArray[np.float64]
_Kind = Callable[[Floats, np.random.Generator], Floats]

_CENTRE = (SIDE - 1) / 2
_ROWS, _COLUMNS = np.mgrid[:SIDE, :SIDE]


def corrupt(images: Images, kind: str, random: np.random.Generator) -> Images:
    """Return the images, (n, 28, 28) uint8 bright on dark, each corrupted by one of `KINDS`."""
    corrupted = _KINDS[kind](images / 255, random)
    rounded: Images = np.rint(corrupted.clip(0, 1) * 255).astype(np.uint8)
    return rounded


def _shot_noise(x: Floats, random: np.random.Generator) -> Floats:
    return random.poisson(x * 3) / 3


def _impulse_noise(x: Floats, random: np.random.Generator) -> Floats:
    hit = random.random(x.shape) < 0.17
    return np.where(hit, random.integers(2, size=x.shape), x)


def _glass_blur(x: Floats, random: np.random.Generator) -> Floats:
    """Blur, swap neighbours, blur; MNIST-C blurs down the columns only, an accident it keeps."""
    x = _blur(x, (0, 0.7, 0))
    everyone = np.arange(len(x))
    for _ in range(2):
        swap = random.integers(2, size=(SIDE, SIDE, len(x)))
        up, left = random.integers(2, size=(2, SIDE, SIDE, len(x))) * swap
        for row in range(SIDE - 1, 1, -1):
            for column in range(SIDE - 1, 1, -1):
                there = everyone, row - up[row, column], column - left[row, column]
                x[:, row, column], x[there] = x[there], x[:, row, column].copy()
    return _blur(x, (0, 0.7, 0))


def _motion_blur(x: Floats, random: np.random.Generator) -> Floats:
    """Blur one way at up to 45 degrees, as ImageMagick's MotionBlurImage: radius 10, sigma 3."""
    steps = np.arange(21)
    weights = np.exp(-(steps**2) / (2 * 3**2))
    angle = np.radians(random.uniform(-45, 45, len(x)))[:, None, None]
    padded = np.pad(x, ((0, 0), (20, 20), (20, 20)), "edge")
    everyone, blurred = np.arange(len(x))[:, None, None], np.zeros_like(x)
    for step, weight in zip(steps, weights / weights.sum(), strict=True):
        down, across = (np.ceil(step * f(angle) - 0.5).astype(int) for f in (np.sin, np.cos))
        blurred += weight * padded[everyone, _ROWS + 20 + down, _COLUMNS + 20 + across]
    return blurred


def _shear(x: Floats, random: np.random.Generator) -> Floats:
    """Shear by 0.4 to either side, in scikit-image's sense of 2019: an angle in radians."""
    return _either_way(x, random, lambda way: [[np.cos(0.4), 0], [-way * np.sin(0.4), 1]])


def _scale(x: Floats, random: np.random.Generator) -> Floats:
    return _either_way(x, random, lambda _: [[1 / 0.7, 0], [0, 1 / 0.7]])


def _rotate(x: Floats, random: np.random.Generator) -> Floats:
    def matrix(way: int) -> list[list[float]]:
        cos, sin = np.cos(0.4), way * np.sin(0.4)
        return [[cos, sin], [-sin, cos]]

    return _either_way(x, random, matrix)


def _brightness(x: Floats, _: np.random.Generator) -> Floats:
    return x + 0.5


def _translate(x: Floats, random: np.random.Generator) -> Floats:
    """Move by 3 pixels, up or down and left or right."""
    padded = np.pad(x, ((0, 0), (3, 3), (3, 3)))
    down, across = random.choice([0, 6], (2, len(x), 1, 1))
    moved: Floats = padded[np.arange(len(x))[:, None, None], _ROWS + down, _COLUMNS + across]
    return moved


def _stripe(x: Floats, _: np.random.Generator) -> Floats:
    sides = np.abs(_COLUMNS - _CENTRE) > 7
    return np.where(sides, 1 - x, x)


def _fog(x: Floats, random: np.random.Generator) -> Floats:
    """Lay fog over the digits; four images share a map, whose quarters are alike by symmetry."""
    maps = _plasma(-(-len(x) // 4), random)
    fog = np.concatenate([maps[:, _ROWS * down, _COLUMNS * across] for down, across in _WAYS])
    brightest = x.max(axis=(1, 2), keepdims=True)
    foggy: Floats = (x + 3 * fog[: len(x)]) * brightest / (brightest + 3)
    return foggy


_WAYS = ((1, 1), (1, -1), (-1, 1), (-1, -1))  # from the map's corner, beyond which it repeats


def _plasma(count: int, random: np.random.Generator) -> NDArray[np.float32]:
    """Return (count, 256, 256) heights in 0..1, which wrap, by the diamond-square algorithm."""
    size, height = 256, 100.0**2
    maps = np.zeros((count, size, size), np.float32)

    def rough(total: NDArray[np.float32]) -> NDArray[np.float32]:
        noise = random.random(total.shape, np.float32)
        return total / 4 + np.float32(height) * (2 * noise - 1)

    def with_next(grid: NDArray[np.float32], axis: int, way: int) -> NDArray[np.float32]:
        return grid + np.roll(grid, way, axis)

    step = size
    while step >= 2:
        half = step // 2
        corners = maps[:, ::step, ::step]
        maps[:, half::step, half::step] = rough(with_next(with_next(corners, 1, -1), 2, -1))
        middles = maps[:, half::step, half::step]
        beside = with_next(middles, 1, 1) + with_next(corners, 2, -1)
        below = with_next(middles, 2, 1) + with_next(corners, 1, -1)
        maps[:, ::step, half::step], maps[:, half::step, ::step] = rough(beside), rough(below)
        step, height = half, height / 1.4**2
    maps -= maps.min(axis=(1, 2), keepdims=True)
    heights: NDArray[np.float32] = maps / maps.max(axis=(1, 2), keepdims=True)
    return heights


def _spatter(x: Floats, random: np.random.Generator) -> Floats:
    liquid = _blur(random.normal(0.65, 0.3, x.shape), (0, 1, 1))
    mud = _blur((liquid > 0.65).astype(float), (0, 1.5, 1.5))
    mud[mud < 0.8] = 0
    return x * (1 - mud) + 63 / 255 * mud


def _dotted_line(x: Floats, random: np.random.Generator) -> Floats:
    first, last = random.integers(0, 27, (2, len(x)))
    dots = _COLUMNS // 2 % 2 == 1
    lines = _line(np.zeros(len(x)), first, np.full(len(x), 27), last)
    return np.where(dots, x + lines, x)


def _zigzag(x: Floats, random: np.random.Generator) -> Floats:
    """Draw a line of seven strokes, 4 pixels long by 2 to each side, from column 2 to 25."""
    start = random.integers(0, 27, len(x))
    slope = random.integers(-5, 5, len(x)) / 23
    length = 23 * np.hypot(1, slope)
    along = np.stack([np.full_like(length, c) for c in (0, 2, 6, 10, 14, 18, 22)] + [length])
    aside = np.stack([np.full_like(length, r) for r in (0, 2, -2, 2, -2, 2, -2)])
    aside = np.vstack([aside, -1 / (length - 20)])
    cos, sin = 23 / length, slope * 23 / length
    columns, rows = 2 + cos * along - sin * aside, start + sin * along + cos * aside
    for stroke in range(7):
        ends = (columns[stroke], rows[stroke], columns[stroke + 1], rows[stroke + 1])
        x = (x + _line(*ends)).clip(0, 1)
    return x


def _canny_edges(x: Floats, _: np.random.Generator) -> Floats:
    return canny(x).astype(float)


def _blur(x: Floats, sigma: tuple[float, float, float]) -> Floats:
    blurred: Floats = ndimage.gaussian_filter(x, sigma, mode="nearest")
    return blurred


def _either_way(
    x: Floats, random: np.random.Generator, matrix: Callable[[int], list[list[float]]]
) -> Floats:
    """Map each image about its centre; `matrix` of 1 or -1 says where rows and columns are from."""
    ways, moved = random.choice([-1, 1], len(x)), np.empty_like(x)
    for way in (-1, 1):
        whole = np.eye(3)
        whole[1:, 1:] = matrix(way)
        centre = np.array([0, _CENTRE, _CENTRE])
        offset = centre - whole @ centre
        moved[ways == way] = ndimage.affine_transform(x[ways == way], whole, offset, order=1)
    return moved


def _line(first_column: Floats, first_row: Floats, last_column: Floats, last_row: Floats) -> Floats:
    """Return (n, 28, 28) lines of brightness 1, fading to 0 at 1.45 rows from their middle."""
    c0, r0, c1, r1 = (a[:, None, None] for a in (first_column, first_row, last_column, last_row))
    distance = np.abs(_ROWS - r0 - (r1 - r0) / (c1 - c0) * (_COLUMNS - c0))
    bright = (np.log(1 - distance.clip(0, 2.2999) / 2.3) + 1).clip(0, 1)
    return np.where((np.floor(c0) <= _COLUMNS) & (np.ceil(c1) > _COLUMNS), bright, 0)


_KINDS: dict[str, _Kind] = {
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "glass_blur": _glass_blur,
    "motion_blur": _motion_blur,
    "shear": _shear,
    "scale": _scale,
    "rotate": _rotate,
    "brightness": _brightness,
    "translate": _translate,
    "stripe": _stripe,
    "fog": _fog,
    "spatter": _spatter,
    "dotted_line": _dotted_line,
    "zigzag": _zigzag,
    "canny_edges": _canny_edges,
}
KINDS = tuple(_KINDS)
