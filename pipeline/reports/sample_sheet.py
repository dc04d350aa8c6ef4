"""The sample sheet: images of each digit from each split, side by side."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from matplotlib.figure import Figure

from pipeline.data.dataset import CLASSES, SIDE, Images, Split, Splits
from pipeline.reports import theme

COLUMNS = {"train": 10, "validation": 5, "test": 5}

# In pixels of the sheet.
_TILE = 2 * SIDE
_STEP = _TILE + 4
_LEFT, _BETWEEN, _RIGHT = 72, 40, 40
_TOP, _BOTTOM = 120, 36
_DPI = 100
WIDTH = _LEFT + sum(COLUMNS.values()) * _STEP + (len(COLUMNS) - 1) * _BETWEEN + _RIGHT
HEIGHT = _TOP + CLASSES * _STEP + _BOTTOM


def sample_sheet(splits: Splits, name: str, seed: int) -> bytes:
    """Return a PNG of `WIDTH` x `HEIGHT`, a row per digit: same bytes for the same arguments."""
    figure = Figure((WIDTH / _DPI, HEIGHT / _DPI), dpi=_DPI)
    _strong(figure, _LEFT, 44, name, size=17)
    _quiet(figure, WIDTH - _RIGHT - 4, 44, f"random images of each digit, seed {seed}")
    for digit in range(CLASSES):
        _quiet(figure, _LEFT - 24, _TOP + digit * _STEP + _TILE / 2, f"{digit}", size=15)
    random = np.random.default_rng(seed)
    left = _LEFT
    for part, columns in COLUMNS.items():
        split: Split = getattr(splits, part)
        tiles = _tiles(split, columns, random)
        height, width = tiles.shape
        grey = np.stack([tiles] * 3, axis=-1)  # as RGB: a colour map would round
        figure.figimage(grey, left, HEIGHT - _TOP - height)
        _strong(figure, left, _TOP - 22, part, size=12)
        _quiet(figure, left + width - 4, _TOP - 22, f"{len(split):,} images")
        left += width + _BETWEEN
    with BytesIO() as file:
        figure.savefig(file, format="png", metadata={"Software": None})
        return file.getvalue()


def _strong(figure: Figure, left: float, y: float, text: str, size: int) -> None:
    place = (left / WIDTH, 1 - y / HEIGHT)
    figure.text(*place, text, size=size, weight="bold", color=theme.INK, va="center_baseline")


def _quiet(figure: Figure, right: float, y: float, text: str, size: int = 12) -> None:
    place = (right / WIDTH, 1 - y / HEIGHT)
    figure.text(*place, text, size=size, color=theme.MUTED, ha="right", va="center_baseline")


def _tiles(split: Split, columns: int, random: np.random.Generator) -> Images:
    """Return images of the split on white, a row per digit; places without an image stay white."""
    sheet = np.full((CLASSES * _STEP, columns * _STEP), 255, np.uint8)
    for digit in range(CLASSES):
        some = np.flatnonzero(split.labels == digit)
        some = random.choice(some, min(columns, len(some)), replace=False)
        for column, image in enumerate(split.images[np.sort(some)]):
            top, left = digit * _STEP, column * _STEP
            sheet[top : top + _TILE, left : left + _TILE] = image.repeat(2, 0).repeat(2, 1)
    return sheet
