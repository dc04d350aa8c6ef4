"""Random drawings for the OOD examples: letters, strokes, noise, digits turned and in parts.

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
from pipeline.data.dataset import SIDE, Images, Labels
from pipeline.data.pen_strokes import Grey, Points, Template
from serve.imaging.placement import crop

_CANVAS, _TYPE = 72, 48  # pixels of a side and of a letter, which stays inside when it is turned
_BOX = (66, 100)  # in which strokes are drawn, as the templates of pen strokes
_BROADEST, _THIN = 9, 7  # pixels of the pens of letters and of thin digits, at most
_ALONG, _ASIDE = (0, 0.2, 0.5, 0.8, 1), (0, 0.7, 1, 0.7, 0)  # points of a bow
_MIRRORED, _LYING = (3, 4, 6, 9), (2, 3, 4, 5)  # digits that are none when they are turned so
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


def letter(random: np.random.Generator, names: Sequence[str]) -> Grey:
    """Draw one of these letters or signs of `pen_letters.txt`, in the pen of the digits."""
    ways = [way for name in names for way in pen_letters()[name]]
    return pen_strokes.character(random, ways, _BROADEST)


def pen_letters() -> dict[str, list[Template]]:
    """Return the templates of `pen_letters.txt` by their names."""
    return _templates("pen_letters.txt")


def pen_digits() -> dict[str, list[Template]]:
    """Return the templates of `pen_digits.txt` by their digits."""
    return _templates("pen_digits.txt")


@cache
def _templates(name: str) -> dict[str, list[Template]]:
    return pen_strokes.templates(Path(__file__).with_name(name))


def pen_digit(random: np.random.Generator, which: int, *, thin: bool) -> Grey:
    """Draw a digit after a template of the networks or, half of the time, of `pen_digits.txt`."""
    ways = pen_digits().get(str(which))
    if not ways or random.random() < 0.5:
        ways = pen_strokes.TEMPLATES[which]
    return pen_strokes.character(random, ways, _THIN if thin else pen_strokes.broadest(which))


def strokes(random: np.random.Generator) -> Grey:
    """Draw three to five strokes, some of them from where another passes: a made-up character."""
    drawn: list[Points] = []
    for _ in range(int(random.integers(3, 6))):
        start, end = random.uniform(0, 1, (2, 2)) * _BOX
        if drawn and random.random() < 0.6:
            start = random.choice(drawn[int(random.integers(len(drawn)))])
        while np.hypot(*(end - start)) < 35:
            end = random.uniform(0, 1, 2) * _BOX
        bend = random.uniform(-0.6, 0.6) * (end - start)[::-1] * (1, -1)
        elsewhere = random.uniform(0, 1, 2) * _BOX
        level = (start[0], end[1]) if random.random() < 0.5 else (end[0], start[1])
        bow = start + np.outer(_ALONG, end - start) + np.outer(_ASIDE, bend)
        straight = np.array([start, (start + end) / 2, end])
        forms = (straight, np.array([start, end, elsewhere]), bow, np.array([start, level, end]))
        drawn.append(forms[int(random.integers(len(forms)))])
    return pen_strokes.written(random, drawn, _BROADEST)


def turned(random: np.random.Generator, digits: Images, labels: Labels) -> Grey:
    """Draw a digit that lies on its side or is mirrored, of those that then are none."""
    mirrored = random.random() < 0.5
    chosen = np.flatnonzero(np.isin(labels, _MIRRORED if mirrored else _LYING))
    if not len(chosen):  # a tiny data set
        return scrambled(random, digits)
    digit = digits[random.choice(chosen)]
    changed = digit[:, ::-1] if mirrored else np.rot90(digit, int(random.choice((1, 3))))
    large = Image.fromarray(np.ascontiguousarray(changed)).resize((2 * SIDE, 2 * SIDE), _BICUBIC)
    return np.asarray(large)


def bitmap(random: np.random.Generator, picture: Grey) -> Grey:
    """Draw a digit as a small bitmap that it fills, more or less stretched to a square.

    Half of them are the coarsest, and stretched the most, as old data sets of scans have them.
    """
    digit = Image.fromarray(crop(picture))
    coarse = random.random() < 0.5
    side = int(random.integers(14, 21 if coarse else 33))
    narrow = digit.width / digit.height * side
    width = max(5, round(narrow + (side - narrow) * random.uniform(0.6 if coarse else 0, 1)))
    small = np.asarray(digit.resize((width, side), _BICUBIC))
    ink = np.where(small > random.uniform(60, 160), 255, 0).astype(np.uint8)
    return np.pad(ink, int(random.integers(1, 6)))


def patch(random: np.random.Generator, photograph: str) -> Grey:
    """Cut a square out of one of scikit-learn's photographs."""
    whole = _photograph(photograph)
    side = int(np.exp(random.uniform(np.log(SIDE), np.log(160))))
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
