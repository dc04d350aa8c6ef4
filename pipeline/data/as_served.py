"""Images for evaluation, normalised as the service normalises what it receives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.config import PipelineError
from pipeline.data import dataset
from pipeline.data.dataset import Split
from serve.imaging.errors import NoDigitError
from serve.imaging.normalise import normalise


def load(path: Path, name: str) -> Split:
    """Read a split and normalise each image as the service does; MNIST's images stay as they are.

    Raises:
        PipelineError: the file is missing, or an image is empty.
    """
    split = dataset.load(path, name)
    images = np.empty_like(split.images)
    for place, image in enumerate(split.images):
        try:
            images[place] = normalise(image)
        except NoDigitError as error:
            raise PipelineError(
                f"{path}: image {split.index[place]} of the {name} split: {error}"
            ) from error
    return replace(split, images=images)
