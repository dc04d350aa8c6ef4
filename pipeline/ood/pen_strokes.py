"""Digits drawn with a round pen of one width, as on the service's page.

Each is a template of strokes, randomly distorted: no two are alike. Without them the OOD network
knows such a pen from scribbles alone, and takes a straight 1 for a scribble.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Grey = NDArray[np.uint8]  # (height, width), bright on black, not yet normalised
Points = NDArray[np.float64]  # (n, 2): x to the right and y down

_SIDE = 160  # pixels of the canvas; a template is 100 high and at most 66 wide
# The ways to write each digit, one a line, as `x,y` points; a bar ends a stroke.
_TEMPLATES = """
0: 30,0 12,12 3,34 2,58 10,86 30,100 50,90 60,62 58,34 48,12 30,0
0: 48,8 28,0 8,20 0,52 10,88 34,100 58,82 64,48 56,18 38,2
1: 0,0 0,33 0,67 0,100
1: 0,24 16,12 30,0 30,34 29,67 29,100
1: 8,22 30,0 30,50 30,100 | 6,100 30,100 56,100
2: 2,22 14,4 36,0 56,12 56,34 38,60 18,82 0,100 30,99 64,98
2: 4,18 22,0 48,4 54,28 36,62 10,92 0,86 12,80 34,94 66,96
3: 4,14 24,0 46,4 54,22 42,42 20,48 46,54 60,74 48,94 24,100 0,88
3: 2,2 28,1 56,0 40,22 24,40 46,46 58,68 46,92 22,100 0,92
4: 24,0 14,24 6,46 0,62 30,61 66,60 | 50,22 49,60 48,100
4: 44,0 26,28 0,64 32,64 66,64 | 44,0 44,50 44,100
4: 4,0 2,26 6,48 28,52 52,46 | 56,0 54,48 52,100
5: 58,0 34,1 10,2 7,22 4,42 28,36 52,48 58,72 42,94 18,100 0,90
5: 10,4 8,22 5,44 30,38 54,52 56,78 36,98 0,94 | 10,4 36,2 62,0
6: 48,0 24,20 8,48 2,72 10,94 32,100 54,90 58,70 44,54 24,56 6,72
6: 34,0 14,30 2,66 12,96 38,98 50,78 40,60 18,62 4,78
7: 0,4 30,2 62,0 48,32 34,66 24,100
7: 0,2 30,1 62,0 46,34 32,68 22,100 | 12,50 36,49 58,48
7: 2,18 2,2 32,1 62,0 44,40 34,70 30,100
8: 52,14 30,0 8,12 8,32 30,48 54,66 54,90 30,100 4,90 4,68 28,50 50,34 52,14
8: 30,46 10,36 8,14 30,0 52,14 50,36 30,46 8,60 2,80 12,96 32,100 54,94 58,76 50,58 30,46
9: 54,18 38,0 14,2 2,22 8,44 28,50 48,38 54,14 53,44 51,72 48,100
9: 52,16 32,0 8,8 2,30 16,46 40,42 52,22 54,52 46,82 22,100 2,92
9: 54,6 24,0 2,16 6,40 30,46 54,30 54,4 54,54 54,100
"""


def _parsed() -> list[list[list[Points]]]:
    templates: list[list[list[Points]]] = [[] for _ in range(10)]
    for line in _TEMPLATES.strip().splitlines():
        digit, strokes = line.split(": ")
        points = ([point.split(",") for point in stroke.split()] for stroke in strokes.split("|"))
        templates[int(digit)].append([np.array(stroke, float) for stroke in points])
    return templates


TEMPLATES = _parsed()  # by digit: templates of strokes of points


def digit(random: np.random.Generator, which: int) -> Grey:
    """Return the digit after one of its templates, in a random hand and with a random pen."""
    strokes = TEMPLATES[which][int(random.integers(len(TEMPLATES[which])))]
    hand = _hand(random)
    jitter, pen = random.uniform(0, 3.5), random.uniform(4, 20)
    curved = random.random() < 0.8
    canvas = Image.new("L", (_SIDE, _SIDE))
    for stroke in strokes:
        moved = (stroke + random.normal(0, jitter, stroke.shape) - (30, 50)) @ hand + _SIDE / 2
        draw(canvas, smooth(moved) if curved else moved, pen)
    return np.asarray(canvas.reduce(2))


def smooth(points: Points) -> Points:
    """Return closely spaced points on a curve through `points` (Catmull-Rom spline)."""
    ends = np.vstack([points[:1], points, points[-1:]])
    step = np.linspace(0, 1, 8)[:, None]
    return np.vstack(
        [
            b
            + (c - a) / 2 * step
            + (a - 2.5 * b + 2 * c - d / 2) * step**2
            + (1.5 * (b - c) + (d - a) / 2) * step**3
            for a, b, c, d in zip(ends, ends[1:], ends[2:], ends[3:], strict=False)
        ]
    )


def draw(canvas: Image.Image, points: Points, pen: float) -> None:
    """Draw the line through the points with a round pen of `pen` pixels."""
    image, path = ImageDraw.Draw(canvas), [(float(x), float(y)) for x, y in points]
    image.line(path, 255, round(pen))
    for x, y in path:
        image.ellipse((x - pen / 2, y - pen / 2, x + pen / 2, y + pen / 2), 255)


def _hand(random: np.random.Generator) -> Points:
    """Return a random (2, 2) matrix that turns, slants and stretches."""
    angle = np.radians(random.uniform(-8, 8))
    width, height = random.uniform(0.65, 1.25), random.uniform(0.8, 1.2)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    hand: Points = np.array([[width, 0], [random.uniform(-0.3, 0.15), height]]) @ turn
    return hand
