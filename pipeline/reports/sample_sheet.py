"""The sample sheet: images of each class from each split, side by side."""

from io import BytesIO

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from pipeline.config.data_schema import Data
from pipeline.data.dataset import Images, Split, Splits
from pipeline.reports import theme

COLUMNS = {"train": 10, "validation": 5, "test": 5}
MARGIN = 2  # pixels between images
MOST_PIXELS = 64  # of an image in one direction; of larger ones, pixels are left out
MOST_CLASSES = 40  # that a page shows


@matplotlib.rc_context(theme.STYLE)
def sample_sheet(splits: Splits, data: Data, seed: int) -> bytes:
    """Return a PNG with a row per class: the same bytes for the same arguments."""
    classes = data.classes[:MOST_CLASSES]
    kind = "digit" if data.digits else "class"
    figure = Figure((12, 1 + 0.55 * len(classes)))
    figure.suptitle(f"{data.name}: random images of each {kind}, seed {seed}", color=theme.INK)
    random = np.random.default_rng(seed)
    panels = figure.subplots(1, len(COLUMNS), width_ratios=list(COLUMNS.values()))
    height, width, _ = data.shape
    tile = len(range(0, height, _step(height, width))) + MARGIN
    for axes, (part, columns) in zip(panels, COLUMNS.items(), strict=True):
        split: Split = getattr(splits, part)
        axes.imshow(tiles(split, len(classes), columns, random), "gray", vmin=0, vmax=255)
        axes.set(title=f"{part}, {len(split):,} images", xticks=[])
        axes.set_yticks((np.arange(len(classes)) + 0.5) * tile, classes)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
    with BytesIO() as file:
        figure.savefig(file, format="png", dpi=100, metadata={"Software": None})
        return file.getvalue()


def tiles(split: Split, classes: int, columns: int, random: np.random.Generator) -> Images:
    """Return images of the split on white, a row per class; places without an image stay white."""
    step = _step(*split.images.shape[1:3])
    height, width, *channels = split.images[:1, ::step, ::step].shape[1:]
    down, across = height + MARGIN, width + MARGIN
    sheet = np.full((classes * down, columns * across, *channels), 255, np.uint8)
    for label in range(classes):
        some = np.flatnonzero(split.labels == label)
        some = random.choice(some, min(columns, len(some)), replace=False)
        for column, image in enumerate(split.images[np.sort(some)]):
            top, left = label * down, column * across
            sheet[top : top + height, left : left + width] = image[::step, ::step]
    return sheet


def _step(height: int, width: int) -> int:
    return -(-max(height, width) // MOST_PIXELS)
