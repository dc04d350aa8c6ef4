"""Pictures in colour for an example: `python -m docs.examples.shapes FOLDER`.

Twelve shapes of any colour, size and angle on plain, shaded or noisy grounds: a folder of 32x32
bitmaps for each, and not equally many. The same seed gives the same files.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Points = NDArray[np.float64]  # (n, 2), within the unit circle

_SIDE = 32
_FINE = 4  # times larger, for smooth edges
_FEWEST = 0.25  # pictures of the rarest shape, of those of the most frequent one
_CONTRAST = 90  # at least, in one channel


def _arc(start: float, end: float, radius: float = 1, left: float = 0) -> Points:
    angles = np.radians(np.linspace(start, end, 48))
    return np.stack([radius * np.cos(angles) + left, radius * np.sin(angles)], axis=1)


def _polygon(*points: tuple[float, float]) -> Points:
    return np.array(points, float)


def _star() -> Points:
    radii = np.resize([1, 0.4], 10)
    angles = np.radians(36 * np.arange(10))
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _heart() -> Points:
    t = np.linspace(0, 2 * np.pi, 48)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x, y], axis=1) / 17


# Of each shape its outline, and what is cut out of that.
SHAPES: dict[str, tuple[Points, Points | None]] = {
    "circle": (_arc(0, 360), None),
    "square": (_arc(45, 405)[[0, 12, 24, 36]], None),
    "triangle": (_polygon((1, 0), (-0.5, 0.87), (-0.5, -0.87)), None),
    "star": (_star(), None),
    "ring": (_arc(0, 360), _arc(0, 360, 0.55)),
    "heart": (_heart(), None),
    "half_disc": (_arc(0, 180), None),
    "bar": (_polygon((1, 0.22), (-1, 0.22), (-1, -0.22), (1, -0.22)), None),
    "cross": (
        _polygon(
            *((0.3, 1), (0.3, 0.3), (1, 0.3), (1, -0.3), (0.3, -0.3), (0.3, -1)),
            *((-0.3, -1), (-0.3, -0.3), (-1, -0.3), (-1, 0.3), (-0.3, 0.3), (-0.3, 1)),
        ),
        None,
    ),
    "crescent": (_arc(0, 360), _arc(0, 360, 0.85, 0.5)),
    "corner": (
        _polygon((-0.8, -0.8), (0.8, -0.8), (0.8, -0.3), (-0.3, -0.3), (-0.3, 0.8), (-0.8, 0.8)),
        None,
    ),
    "arrow": (
        _polygon(
            (1, 0), (0.1, 0.75), (0.1, 0.28), (-1, 0.28), (-1, -0.28), (0.1, -0.28), (0.1, -0.75)
        ),
        None,
    ),
}


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(prog="python -m docs.examples.shapes", description=__doc__)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="where to write them")
    parser.add_argument("--most", type=int, default=600, help="pictures of the most frequent shape")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    counts = np.linspace(given.most, _FEWEST * given.most, len(SHAPES)).round().astype(int)
    random = np.random.default_rng(given.seed)
    for name, count in zip(SHAPES, counts.tolist(), strict=True):
        (given.folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            picture(name, random).save(given.folder / name / f"{number:04}.bmp")
    print(f"{counts.sum():,} pictures of {len(SHAPES)} shapes are in {given.folder}.")


def picture(name: str, random: np.random.Generator) -> Image.Image:
    """Return a picture of the shape."""
    colour, ground = _colours(random)
    mask = np.asarray(_mask(name, random), float)[..., None] / 255
    pixels = mask * colour + (1 - mask) * _ground(ground, random)
    pixels += random.normal(0, random.uniform(0, 14), pixels.shape)
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def _colours(random: np.random.Generator) -> tuple[Points, Points]:
    while True:
        colour, ground = random.uniform(0, 255, (2, 3))
        if np.abs(colour - ground).max() >= _CONTRAST:
            return colour, ground


def _ground(colour: Points, random: np.random.Generator) -> Points:
    """Return (32, 32, 3): plain, or brighter to one side."""
    angle, strength = random.uniform(0, 2 * np.pi), random.choice([0, 1]) * random.uniform(0, 40)
    down, across = np.mgrid[-1 : 1 : _SIDE * 1j, -1 : 1 : _SIDE * 1j]
    slope = strength * (np.cos(angle) * across + np.sin(angle) * down)
    return np.asarray(colour + slope[..., None])


def _mask(name: str, random: np.random.Generator) -> Image.Image:
    """Return where the shape is, from 0 to 255: 32x32."""
    radius = random.uniform(8, 14)
    place = _SIDE / 2 + random.uniform(-1, 1, 2) * (15 - radius)
    angle = random.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])

    def moved(points: Points) -> list[tuple[float, float]]:
        found = (points @ turn * radius + place) * _FINE
        return [(x, y) for x, y in found.tolist()]

    outline, hole = SHAPES[name]
    canvas = Image.new("L", (_SIDE * _FINE, _SIDE * _FINE))
    draw = ImageDraw.Draw(canvas)
    draw.polygon(moved(outline), fill=255)
    if hole is not None:
        draw.polygon(moved(hole), fill=0)
    return canvas.reduce(_FINE)


if __name__ == "__main__":
    main()
