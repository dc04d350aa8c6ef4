"""The images that models are judged on, as the service would let a model see them."""

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
    """A split with each image normalised as the service does it; MNIST's stay as they are.

    Raises:
        PipelineError: there is no such data, or an image shows nothing.
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
