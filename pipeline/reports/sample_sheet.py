"""The sample sheet: images of each digit from each split, side by side."""

from io import BytesIO

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from pipeline.data.dataset import CLASSES, SIDE, Images, Split, Splits
from pipeline.reports import theme

COLUMNS = {"train": 10, "validation": 5, "test": 5}
TILE = SIDE + 2  # pixels of an image with its margin


@matplotlib.rc_context(theme.STYLE)
def sample_sheet(splits: Splits, name: str, seed: int) -> bytes:
    """Return a PNG with a row per digit: the same bytes for the same arguments."""
    figure = Figure((12, 6.5))
    figure.suptitle(f"{name}: random images of each digit, seed {seed}", color=theme.INK)
    random = np.random.default_rng(seed)
    panels = figure.subplots(1, len(COLUMNS), width_ratios=list(COLUMNS.values()))
    for axes, (part, columns) in zip(panels, COLUMNS.items(), strict=True):
        split: Split = getattr(splits, part)
        axes.imshow(tiles(split, columns, random), "gray", vmin=0, vmax=255)
        axes.set(title=f"{part}, {len(split):,} images", xticks=[])
        axes.set_yticks((np.arange(CLASSES) + 0.5) * TILE, range(CLASSES))
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
    with BytesIO() as file:
        figure.savefig(file, format="png", dpi=100, metadata={"Software": None})
        return file.getvalue()


def tiles(split: Split, columns: int, random: np.random.Generator) -> Images:
    """Return images of the split on white, a row per digit; places without an image stay white."""
    sheet = np.full((CLASSES * TILE, columns * TILE), 255, np.uint8)
    for digit in range(CLASSES):
        some = np.flatnonzero(split.labels == digit)
        some = random.choice(some, min(columns, len(some)), replace=False)
        for column, image in enumerate(split.images[np.sort(some)]):
            top, left = digit * TILE, column * TILE
            sheet[top : top + SIDE, left : left + SIDE] = image
    return sheet
