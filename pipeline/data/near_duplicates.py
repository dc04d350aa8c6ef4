"""Near-duplicates: test images that the training images hold too, or nearly.

They make a test easier than it should be. Two images are near if the distance of their pixels,
each image scaled to length 1, is at most LIMIT: their cosine similarity is at least 0.98.
A command that takes half a minute: `python -m pipeline.data.near_duplicates data=mnist`.
"""

import logging

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import pairwise_distances_argmin_min

from pipeline.config import Config, paths, stage
from pipeline.data import dataset
from pipeline.data.dataset import Images

logger = logging.getLogger(__name__)

LIMIT = 0.2


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
    _, distances = pairwise_distances_argmin_min(_scaled(images), _scaled(others))
    return {
        "identical": sum(image.tobytes() in known for image in images),
        "near": int((distances <= LIMIT).sum()),
    }


def _scaled(images: Images) -> NDArray[np.float32]:
    flat = images.reshape(len(images), -1).astype(np.float32)
    scaled: NDArray[np.float32] = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1)
    return scaled


if __name__ == "__main__":
    stage(main)()
