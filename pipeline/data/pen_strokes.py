"""Handwritten digits made of pen strokes, in the styles of many countries.

MNIST's writers were from one country: its ones have no flag, its sevens hardly a bar. Networks
train on these beside MNIST's images, and the OOD network learns from them that a pen of one width,
as on the service's page, draws digits too. Each is randomly distorted: no two are alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pipeline.data.dataset import CLASSES, SIDE, Split
from serve.imaging.placement import crop, place_digit

Grey = NDArray[np.uint8]  # (height, width), bright on black, not yet normalised
Points = NDArray[np.float64]  # (n, 2): x to the right and y down

# Fours and nines are twice as many: their forms are the most, and the most alike.
_SHARES = (*range(CLASSES), 4, 9)
_SIDE = 128  # pixels of the canvas, on which a template is drawn at half its size


Template = list[list[Points]]  # forms of a character, each a list of strokes


def templates(path: Path) -> dict[str, list[Template]]:
    """Return the templates of each character in a file like `pen_strokes.txt`."""
    found: dict[str, list[Template]] = {}
    for line in path.read_text().splitlines():
        start, _, form = line.partition(" ")
        if start == "#":
            continue
        if start != "~":
            template: Template = []
            found.setdefault(start.rstrip(":"), []).append(template)
        strokes = ([point.split(",") for point in stroke.split()] for stroke in form.split("|"))
        template.append([np.array(stroke, float) for stroke in strokes])
    return found


_DIGITS = templates(Path(__file__).with_suffix(".txt"))
TEMPLATES = [_DIGITS[str(digit)] for digit in range(CLASSES)]  # by digit


def split(count: int, seed: int) -> Split:
    """Return `count` drawn digits, placed as the service does it; `index` is -1.

    A twelfth are of each digit, a sixth each of fours and nines. Equal seeds give equal images.
    """
    random = np.random.default_rng(seed)
    labels = random.permutation(np.resize(_SHARES, count)).astype(np.uint8)
    images = np.empty((count, SIDE, SIDE), np.uint8)
    for place, label in enumerate(labels):
        images[place] = place_digit(crop(digit(random, int(label))))
    return Split(images, labels, np.full(count, -1, np.int32))


def digit(random: np.random.Generator, which: int) -> Grey:
    """Return the digit after one of its templates, in a random hand and with a random pen."""
    return character(random, TEMPLATES[which], broadest(which))


def broadest(which: int) -> int:
    """Return the broadest pen of a digit, in pixels: a broader one closes loops, and 1 has none."""
    return 20 if which == 1 else 13


def character(random: np.random.Generator, ways: Sequence[Template], widest: float) -> Grey:
    """Return a character after one of these templates, in a random hand and with a random pen."""
    forms = ways[int(random.integers(len(ways)))]
    shares = random.dirichlet(np.full(len(forms), 0.5))
    strokes = [np.tensordot(shares, stroke, 1) for stroke in zip(*forms, strict=True)]
    return written(random, strokes, widest)


def written(random: np.random.Generator, strokes: Sequence[Points], widest: float) -> Grey:
    """Return the strokes, 100 high and about (30, 50), in a random hand and with a random pen."""
    hand = _hand(random) / 2
    jitter = random.uniform(0, 3.5)
    pen = random.uniform(2, widest)
    start, end = random.uniform(0.5, 1, 2) if random.random() < 0.5 else (1.0, 1.0)
    curved = random.random() < 0.75
    canvas = Image.new("L", (_SIDE, _SIDE))
    for points in strokes:
        moved = (points + random.normal(0, jitter, points.shape) - (30, 50)) @ hand + _SIDE / 2
        draw(canvas, smooth(moved) if curved else moved, pen, (start, end))
    return _bitmap(random, canvas) if random.random() < 0.3 else np.asarray(canvas)


def _bitmap(random: np.random.Generator, canvas: Image.Image) -> Grey:
    """Return the canvas as an old scanner or form reader has it: few pixels, black or white."""
    side = int(random.integers(24, 56))
    few = np.asarray(canvas.resize((side, side), Image.Resampling.BOX))
    inked: Grey = np.uint8(255) * (few >= np.quantile(few[few > 0], random.uniform(0.1, 0.5)))
    return inked


def smooth(points: Points) -> Points:
    """Return closely spaced points on a curve through `points` (Catmull-Rom spline)."""
    ends = np.vstack([points[:1], points, points[-1:]])
    step = np.linspace(0, 1, 6)[:, None]
    return np.vstack(
        [
            b
            + (c - a) / 2 * step
            + (a - 2.5 * b + 2 * c - d / 2) * step**2
            + (1.5 * (b - c) + (d - a) / 2) * step**3
            for a, b, c, d in zip(ends, ends[1:], ends[2:], ends[3:], strict=False)
        ]
    )


def draw(
    canvas: Image.Image, points: Points, pen: float, pressure: tuple[float, float] = (1, 1)
) -> None:
    """Draw the line through the points with a round pen of `pen` pixels.

    `pressure`: share of the width that the pen has at the line's start and at its end.
    """
    image = ImageDraw.Draw(canvas)
    widths = pen * np.linspace(*pressure, len(points))
    for (x, y), (u, v), width in zip(
        points[:-1].tolist(), points[1:].tolist(), widths, strict=False
    ):
        image.line((x, y, u, v), 255, round(width))
    for (x, y), width in zip(points.tolist(), widths / 2, strict=True):
        image.ellipse((x - width, y - width, x + width, y + width), 255)


def _hand(random: np.random.Generator) -> Points:
    """Return a random (2, 2) matrix that turns, slants and stretches."""
    angle = np.radians(random.uniform(-10, 10))
    width, height = np.exp(random.normal(0, 0.35)), random.uniform(0.75, 1.2)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    hand: Points = np.array([[width, 0], [random.normal(-0.1, 0.22), height]]) @ turn
    return hand
