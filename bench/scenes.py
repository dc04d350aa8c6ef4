"""Digits among other things: how they are read, and how often silently wrong.

`python -m bench.scenes` draws each kind of scene with MNIST's digits, from a seed, and reads it
with the service's code. Silently wrong is a wrong digit that is answered with confidence and
without a flag. Use `--split validation` for experiments; the test set is for a report.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.table import Column, Table

from bench.variants import chosen, thicker
from docs.tools.recorded import show
from pipeline.config import paths
from pipeline.data import as_served
from pipeline.data.dataset import Images, Split
from serve.models.predictor import Predictor
from serve.settings import Settings

Floats = NDArray[np.float64]  # (height, width)
Draw = Callable[[Images, np.random.Generator], NDArray[np.uint8]]  # the first image is to be read

COUNT = 500  # scenes of each kind
CONFIDENT = 0.9
_SIDES = (120, 480)  # of a scene, in pixels


class _Page(NamedTuple):
    """A sheet with a digit: how much ink covers each pixel, 0 to 1, and where the digit lies."""

    cover: Floats
    box: tuple[int, int, int, int]  # top, left, bottom, right


def _page(image: Images, chance: np.random.Generator, size: float, margin: float) -> _Page:
    """Place a digit whose longest side is a share of the page's, `margin` away from the edges."""
    height, width = (int(chance.integers(*_SIDES)) for _ in "ab")
    width = int(np.clip(width, height / 2, 2 * height))
    digit = _trimmed(image)
    longest = size * min(height, width)
    drawn = _resized(digit, longest / max(digit.shape))
    rows, columns = drawn.shape
    edge = margin * min(height, width)
    top, left = (
        int(chance.uniform(edge, max(edge + 1, length - edge - side)))
        for length, side in ((height, rows), (width, columns))
    )
    cover = np.zeros((height, width))
    cover[top : top + rows, left : left + columns] = drawn
    return _Page(cover, (top, left, top + rows, left + columns))


def _trimmed(image: Images) -> Images:
    return image[np.ix_(image.any(1), image.any(0))]


def _resized(digit: Images, scale: float) -> Floats:
    """Enlarge to ink coverage with a pen's sharp edges."""
    height, width = (max(1, round(side * scale)) for side in digit.shape)
    grey = Image.fromarray(digit).resize((width, height), Image.Resampling.BICUBIC)
    cover: Floats = (np.asarray(grey) / 255 * 2 - 0.5).clip(0, 1)
    return cover


def _paper(shape: tuple[int, ...], chance: np.random.Generator) -> Floats:
    """Return paper in light that changes smoothly."""
    height, width = shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    slope = chance.uniform(-1, 1, 2) * chance.choice([0, 0.06, 0.12])
    light: Floats = chance.uniform(180, 245) * (0.9 + slope[0] * x + slope[1] * y)
    return light


def _taken(grey: Floats, chance: np.random.Generator) -> NDArray[np.uint8]:
    """Add noise; one in four is light on dark."""
    noisy = grey + chance.normal(0, chance.choice([0, 2, 5]), grey.shape)
    bytes_ = noisy.clip(0, 255).astype(np.uint8)
    return 255 - bytes_ if chance.random() < 0.25 else bytes_


def _inked(paper: Floats, cover: Floats, strength: float) -> Floats:
    """Lay ink on paper; `strength`: the share of the light that it takes."""
    return paper * (1 - strength * cover)


def _band(kind: str) -> Draw:
    """Return a page with a band along one or two edges, or a pixel or two from them."""

    def draw(images: Images, chance: np.random.Generator) -> NDArray[np.uint8]:
        page = _page(images[0], chance, chance.uniform(0.25, 0.6), 0.17)
        grey = _inked(_paper(page.cover.shape, chance), page.cover, chance.uniform(0.5, 0.9))
        for edge in chance.permutation(4)[: chance.integers(1, 3)]:
            across = np.rot90(grey, edge)
            depth = int(np.ceil(chance.uniform(0.02, 0.14) * min(grey.shape)))
            gap = int(chance.choice([0, 0, 0, 1, 2]))
            level = {"dark": chance.uniform(0, 110), "light": 255.0}.get(kind, 90.0)
            band = np.full((depth, across.shape[1]), level)
            if kind == "textured":
                band += chance.normal(0, 35, band.shape)
            slant = chance.uniform(-0.02, 0.02) * np.arange(across.shape[1])
            inside = np.arange(depth)[:, None] < depth - np.abs(slant)
            across[gap : gap + depth] = np.where(inside, band, across[gap : gap + depth])
        return _taken(grey, chance)

    return draw


def _sheet(images: Images, chance: np.random.Generator) -> NDArray[np.uint8]:
    """Return a sheet on a darker table, which it may hide but for a rim, turned a little."""
    page = _page(images[0], chance, chance.uniform(0.25, 0.5), 0.2)
    sheet = _inked(_paper(page.cover.shape, chance), page.cover, chance.uniform(0.5, 0.9))
    margins = [int(chance.uniform(0.03, 0.3) * min(sheet.shape)) for _ in range(4)]
    padded = np.pad(sheet, (margins[:2], margins[2:]), constant_values=-1)
    turned = Image.fromarray(padded.astype(np.float32)).rotate(
        chance.uniform(-8, 8), Image.Resampling.NEAREST, fillcolor=-1
    )
    grey = np.asarray(turned, float)
    table = chance.uniform(20, 120) + chance.normal(0, chance.choice([2, 8]), grey.shape)
    return _taken(np.where(grey < 0, table, grey), chance)


def _ruled(darkness: tuple[float, float], squared: bool) -> Draw:
    """Return lined or squared paper; `darkness`: that of the lines, as a share of the pen's."""

    def draw(images: Images, chance: np.random.Generator) -> NDArray[np.uint8]:
        page = _page(images[0], chance, chance.uniform(0.3, 0.6), 0.05)
        pitch = chance.uniform(0.3, 1.1) * (page.box[2] - page.box[0])
        if squared:
            pitch = chance.uniform(0.12, 0.5) * max(page.box[2] - page.box[0], 20)
        pitch = max(pitch, 12)
        wide = max(1, round(chance.uniform(0.02, 0.07) * pitch))
        strength = chance.uniform(0.3, 0.85)
        lines: Floats = np.zeros_like(page.cover)
        grids: list[Floats] = [lines, lines.T] if squared else [lines]
        for grid in grids:
            for start in np.arange(chance.uniform(0, pitch), len(grid), pitch):
                grid[int(start) : int(start) + wide] = chance.uniform(*darkness)
        cover = np.maximum(page.cover, lines)
        return _taken(_inked(_paper(cover.shape, chance), cover, strength), chance)

    return draw


def _marker(images: Images, chance: np.random.Generator) -> NDArray[np.uint8]:
    """Return a digit of a marker, a sixth to a third as wide as the digit is tall."""
    by = 2 * int(chance.integers(2, 9))
    page = _page(thicker(images[0], by), chance, chance.uniform(0.3, 0.8), 0.05)
    return _taken(_inked(_paper(page.cover.shape, chance), page.cover, 0.8), chance)


def _full_stop(images: Images, chance: np.random.Generator) -> NDArray[np.uint8]:
    """Return a digit and a full stop to its right, on its line."""
    page = _page(images[0], chance, chance.uniform(0.3, 0.6), 0.15)
    _, _, bottom, right = page.box
    tall = page.box[2] - page.box[0]
    radius = chance.uniform(0.05, 0.09) * tall
    y = bottom - radius
    x = right + radius + chance.uniform(0.1, 0.35) * tall
    rows, columns = np.indices(page.cover.shape)
    dot = (radius + 0.5 - np.hypot(rows - y, columns - x)).clip(0, 1)
    cover = np.maximum(page.cover, dot)
    return _taken(_inked(_paper(cover.shape, chance), cover, chance.uniform(0.5, 0.9)), chance)


def _neighbour(images: Images, chance: np.random.Generator) -> NDArray[np.uint8]:
    """Return a digit beside a part of another, which the picture's left or right edge cuts."""
    page = _page(images[0], chance, chance.uniform(0.35, 0.65), 0.1)
    top, left, bottom, right = page.box
    other = _trimmed(images[1])
    drawn = _resized(other, (bottom - top) / other.shape[0])
    gap, share = int(chance.uniform(0.06, 0.3) * (bottom - top)), chance.uniform(0.15, 0.6)
    columns = max(2, int(share * drawn.shape[1]))
    beside = np.zeros((len(page.cover), columns))
    if chance.random() < 0.5:
        beside[top:bottom] = drawn[:, :columns]
        cover = np.hstack([page.cover[:, : right + gap], beside])
    else:
        beside[top:bottom] = drawn[:, -columns:]
        cover = np.hstack([beside, page.cover[:, max(0, left - gap) :]])
    return _taken(_inked(_paper(cover.shape, chance), cover, chance.uniform(0.5, 0.9)), chance)


def _tight(images: Images, chance: np.random.Generator) -> NDArray[np.uint8]:
    """Return a digit cropped to its box, or a pixel beyond it."""
    drawn = np.pad(_trimmed(images[0]) / 255, int(chance.integers(0, 2)))
    scale = chance.choice([1, 1.6, 4, 9])
    if scale > 1:
        drawn = _resized(np.rint(drawn * 255).astype(np.uint8), scale)
    paper = np.full(drawn.shape, chance.uniform(180, 250))
    return _taken(_inked(paper, drawn, chance.uniform(0.6, 0.95)), chance)


KINDS: dict[str, Draw] = {
    "dark band at an edge": _band("dark"),
    "light band at an edge": _band("light"),
    "textured band at an edge": _band("textured"),
    "sheet on a table": _sheet,
    "lined paper, fainter lines": _ruled((0.3, 0.8), squared=False),
    "squared paper, fainter lines": _ruled((0.3, 0.8), squared=True),
    "lined paper, lines as dark": _ruled((0.9, 1.05), squared=False),
    "squared paper, lines as dark": _ruled((0.9, 1.05), squared=True),
    "thick marker": _marker,
    "full stop": _full_stop,
    "part of a neighbour": _neighbour,
    "tight crop": _tight,
    "tight crop of a 0": _tight,
}


class Judged(NamedTuple):
    """Shares of a kind's scenes. An answer may be right and flagged."""

    right: float
    refused: float
    flagged: float
    silently_wrong: float


def scenes(kind: str, split: Split, count: int) -> tuple[list[NDArray[np.uint8]], Images]:
    """Return `count` scenes of a kind and their labels, the same for each call."""
    chance = np.random.default_rng((0, tuple(KINDS).index(kind)))
    usable = np.flatnonzero(split.labels == 0) if kind.endswith("a 0") else np.arange(len(split))
    chosen = chance.permutation(usable)[:count]
    others = chance.permutation(len(split))[: len(chosen)]
    pairs = zip(split.images[chosen], split.images[others], strict=True)
    return [KINDS[kind](np.stack(pair), chance) for pair in pairs], split.labels[chosen]


def judge(pictures: list[NDArray[np.uint8]], labels: Images, predictor: Predictor) -> Judged:
    """Read the scenes as the service does with its default settings."""
    seen, found = as_served.normalised(pictures)
    probabilities = predictor.probabilities(seen)
    confidence = probabilities.max(axis=1)
    right = found & (probabilities.argmax(axis=1) == labels)
    flagged = confidence < Settings.model_construct().confidence_threshold
    if predictor.likelihood:
        flagged |= predictor.likelihoods(seen) < predictor.likelihood.threshold
    flagged &= found
    wrong = found & ~right & ~flagged & (confidence >= CONFIDENT)
    return Judged(*(float(share.mean()) for share in (right, ~found, flagged, wrong)))


def table(found: Mapping[str, Judged]) -> Table:
    """Return a line for each kind, within 80 columns of a terminal."""
    kind = Column("scene", no_wrap=True)
    made = Table(kind, "right %", "no digit found %", "flagged %", "silently wrong %")
    for name, judged in found.items():
        made.add_row(name, *(f"{100 * share:.1f}" for share in judged))
    return made


def main() -> None:
    """Judge all kinds; print one table."""
    split = chosen(__doc__)
    predictor = Predictor(paths.CHAMPION)
    found = {kind: judge(*scenes(kind, split, COUNT), predictor) for kind in KINDS}
    show(table(found), "scenes", "python -m bench.scenes", width=80)


if __name__ == "__main__":
    main()
