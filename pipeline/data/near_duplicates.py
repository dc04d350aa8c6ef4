"""Near-duplicates: test images that the training images hold too, or nearly.

They make a test easier than it should be. Two images are near if the distance of their pixels,
each image scaled to length 1, is at most LIMIT: their cosine similarity is at least 0.98.
A command that takes half a minute: `python -m pipeline.data.near_duplicates data=mnist`.
"""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config, paths, stage
from pipeline.data import dataset
from pipeline.data.dataset import SIDE, Images

logger = logging.getLogger(__name__)

LIMIT = 0.2
_BLOCK = 4  # pixels of a side
_ROWS = 512  # images compared at a time with all others: 110 MB for 54,000 of them

Floats = NDArray[np.float32]


def main(cfg: Config) -> None:
    """Log how many test images the training images hold."""
    train, test = (dataset.load(paths.processed(cfg.data.name), n) for n in ("train", "test"))
    found = count(test.images, train.images)
    logger.info("test images: %d, also among the training images: %s", len(test), found)


def count(images: Images, others: Images) -> dict[str, int]:
    """Count the `images`, (n, 28, 28), that are in `others`, (m, 28, 28), and those near to one.

    `near` counts identical ones too.
    """
    known = {other.tobytes() for other in others}
    return {
        "identical": sum(image.tobytes() in known for image in images),
        "near": int(_near(_scaled(images), _scaled(others)).sum()),
    }


def _scaled(images: Images) -> Floats:
    flat = images.reshape(len(images), -1).astype(np.float32)
    scaled: Floats = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1)
    return scaled


def _near(images: Floats, others: Floats) -> NDArray[np.bool_]:
    """Return for which images another one is near, (n,).

    The sums of blocks of pixels come first: no pair is farther apart in them than in all pixels,
    so few pairs are left to compare.
    """
    near = np.zeros(len(images), bool)
    coarse, coarse_others = _blocks(images), _blocks(others)
    squares = (coarse_others**2).sum(axis=1)
    for start in range(0, len(images), _ROWS):
        some = coarse[start : start + _ROWS]
        squared = (some**2).sum(axis=1, keepdims=True) + squares - 2 * some @ coarse_others.T
        one, other = np.nonzero(squared <= LIMIT**2 + 1e-4)  # and float32's rounding
        distance = np.linalg.norm(images[start + one] - others[other], axis=1)
        near[start + one[distance <= LIMIT]] = True
    return near


def _blocks(scaled: Floats) -> Floats:
    """Project on the blocks of 4 x 4 pixels: their sums, divided by 4 to keep lengths."""
    few = SIDE // _BLOCK
    sums: Floats = scaled.reshape(-1, few, _BLOCK, few, _BLOCK).sum(axis=(2, 4)) / _BLOCK
    return sums.reshape(-1, few**2)


if __name__ == "__main__":
    stage(main)()
