"""Random drawings for the OOD examples: letters, scribbles, noise, digits in parts.

Each function draws one picture, (height, width) uint8, bright on black, not yet normalised. The
order in which it takes random numbers is part of the data sets: changing it changes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.data import pen_strokes
from pipeline.data.dataset import SIDE, Images
from pipeline.data.pen_strokes import Grey

_CANVAS, _TYPE = 72, 48  # pixels of a side and of a letter, which stays inside when it is turned
_BICUBIC = Image.Resampling.BICUBIC


def glyph(random: np.random.Generator, character: str, fonts: Sequence[str]) -> Grey:
    """Draw a character as a hand or a bad scan could have made it."""
    canvas = Image.new("L", (_CANVAS, _CANVAS))
    ImageDraw.Draw(canvas).text(
        (_CANVAS / 2, _CANVAS / 2),
        character,
        255,
        _font(fonts[int(random.integers(len(fonts)))]),
        anchor="mm",
        stroke_width=int(random.integers(0, 3)),
    )
    return _wavy(random, _turned(random, canvas, degrees=12, slant=0.25), pixels=2.2)


@cache
def _font(name: str) -> ImageFont.FreeTypeFont:
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(folder / f"{name}.ttf", _TYPE)


def redrawn(random: np.random.Generator, digit: Grey) -> Grey:
    """Draw a digit anew: large, distorted, mostly black and white, as on a screen."""
    large = Image.fromarray(digit).resize((4 * SIDE, 4 * SIDE), _BICUBIC)
    moved = _wavy(random, _turned(random, large, degrees=6, slant=0.1), pixels=1.5)
    if random.random() < 0.8:
        moved = np.where(moved > random.uniform(60, 180), 255, 0).astype(np.uint8)
    return np.asarray(Image.fromarray(moved).reduce(2)) if random.random() < 0.5 else moved


def scribble(random: np.random.Generator) -> Grey:
    """Draw a smooth line to and fro, in the pen of the pen-drawn digits."""
    points = random.uniform(8, _CANVAS - 8, (int(random.integers(6, 13)), 2))
    canvas = Image.new("L", (_CANVAS, _CANVAS))
    pen_strokes.draw(canvas, pen_strokes.smooth(points), random.uniform(3, 9))
    return np.asarray(canvas)


def patch(random: np.random.Generator, photograph: str) -> Grey:
    """Cut a square out of one of scikit-learn's photographs."""
    whole = _photograph(photograph)
    side = int(random.integers(SIDE, 97))
    top, left = (int(random.integers(0, length - side)) for length in whole.shape)
    return whole[top : top + side, left : left + side]


@cache
def _photograph(name: str) -> Grey:
    from sklearn.datasets import load_sample_image  # takes 1.5 s to import

    return np.asarray(Image.fromarray(load_sample_image(name)).convert("L"))


def noise(random: np.random.Generator) -> Grey:
    """Draw random pixels, specks, blots or tiles."""
    side, form = int(random.integers(20, 41)), random.integers(4)
    if form == 0:
        return random.integers(0, 256, (side, side), np.uint8)
    if form == 1:
        specks = random.random((side, side)) < random.uniform(0.02, 0.3)
        return np.where(specks, 255, 0).astype(np.uint8)
    few = int(random.integers(4, 12))
    coarse = Image.fromarray(random.integers(0, 256, (few, few), np.uint8))
    resampling = _BICUBIC if form == 2 else Image.Resampling.NEAREST
    return np.asarray(coarse.resize((side, side), resampling))


def scrambled(random: np.random.Generator, digits: Images) -> Grey:
    """Draw a digit whose quarters have changed places, three of them or all."""
    middle = digits[random.integers(len(digits)), 4:24, 4:24]
    quarters = middle.reshape(2, 10, 2, 10).swapaxes(1, 2).reshape(4, 10, 10)
    order = random.permutation(4)
    while (order != range(4)).sum() < 3:
        order = random.permutation(4)
    mixed = quarters[order].reshape(2, 2, 10, 10).swapaxes(1, 2).reshape(20, 20)
    large = Image.fromarray(np.ascontiguousarray(mixed)).resize((60, 60), _BICUBIC)
    return np.pad(np.asarray(large), 6)


def two_digits(random: np.random.Generator, digits: Images) -> Grey:
    """Draw two digits side by side, so close that the service takes them for one."""
    first, second = (
        digit[:, digit.any(axis=0)] for digit in digits[random.integers(len(digits), size=2)]
    )
    edge, gap = np.zeros((SIDE, 4), np.uint8), np.zeros((SIDE, int(random.integers(3))), np.uint8)
    both = Image.fromarray(np.hstack([edge, first, gap, second, edge]))
    return np.asarray(both.resize((2 * both.width, 2 * both.height), _BICUBIC))


def _turned(
    random: np.random.Generator, canvas: Image.Image, degrees: float, slant: float
) -> Image.Image:
    """Turn, slant and stretch the canvas about its centre, each by a random share of its limit."""
    angle = np.radians(random.uniform(-degrees, degrees))
    width, height = 1 + random.uniform(-0.15, 0.15, 2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moves = turn @ np.array([[width, random.uniform(-slant, slant)], [0, height]])
    centre = np.array(canvas.size) / 2
    rows = np.column_stack([moves, centre - moves @ centre])
    return canvas.transform(canvas.size, Image.Transform.AFFINE, tuple(rows.ravel()), _BICUBIC)


def _wavy(random: np.random.Generator, canvas: Image.Image, pixels: float) -> Grey:
    """Move each part a little, so that no line stays straight (elastic distortion)."""
    image = np.asarray(canvas)
    height, width = image.shape
    across, down = (
        np.asarray(Image.fromarray(coarse).resize((width, height), _BICUBIC))
        for coarse in random.normal(0, pixels, (2, 4, 4)).astype(np.float32)
    )
    rows, columns = np.mgrid[:height, :width]
    moved: Grey = image[
        np.clip(np.rint(rows + down), 0, height - 1).astype(int),
        np.clip(np.rint(columns + across), 0, width - 1).astype(int),
    ]
    return moved
