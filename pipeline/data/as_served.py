"""Images for evaluation, normalised as the service normalises what it receives."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.config import PipelineError
from pipeline.data import dataset
from pipeline.data.dataset import SIDE, Images, Split
from serve.imaging.errors import NoDigitError
from serve.imaging.normalise import normalise


def load(path: Path, name: str) -> Split:
    """Read a split and normalise each image as the service does; MNIST's images stay as they are.

    It is a PipelineError if the file is missing or an image is empty.
    """
    split = dataset.load(path, name)
    images, found = normalised(split.images)
    for place in split.index[~found]:
        raise PipelineError(f"{path}: image {place} of the {name} split: no digit found")
    return replace(split, images=images)


def normalised(images: Sequence[Images] | Images) -> tuple[Images, NDArray[np.bool_]]:
    """Normalise each image as the service does; also return in which a digit was found, (n,).

    The others become black.
    """
    prepared, found = np.zeros((len(images), SIDE, SIDE), np.uint8), np.ones(len(images), bool)
    for place, image in enumerate(images):
        try:
            prepared[place] = normalise(image).image
        except NoDigitError:
            found[place] = False
    return prepared, found
