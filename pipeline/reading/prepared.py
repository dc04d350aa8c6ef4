"""Preparation of what a data set stores, by the code that prepares what the service receives."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.config import PipelineError
from pipeline.data.dataset import Images
from serve.imaging.errors import NoDigitError
from serve.imaging.normalise import normalise_all
from serve.imaging.preparation import DIGIT, Preparation

_CHUNK = 1024  # pictures whose arrays are in memory at a time


def prepared(pictures: Images, preparation: Preparation, folder: Path) -> Images:
    """Return the images of pictures of one size, (n, h, w) or (n, h, w, channels).

    It is a PipelineError if they have other channels, or one holds no digit.
    """
    if pictures.ndim == 4 and pictures.shape[3] == 1:
        pictures = pictures[..., 0]
    channels = pictures.shape[3] if pictures.ndim == 4 else 1
    if channels != preparation.channels:
        raise PipelineError(
            f"{folder}: images {pictures.shape} have {channels} channels, but "
            f"data.input.channels is {preparation.channels}"
        )
    same_size = pictures.shape[1:3] == preparation.shape[:2]
    if same_size and preparation.kind != DIGIT:
        return pictures
    images = np.empty((len(pictures), *image_shape(preparation)), np.uint8)
    found = _digits(pictures) if same_size else (_made(each, preparation) for each in pictures)
    for place, image in enumerate(found):
        if image is None:
            raise PipelineError(f"{folder}: image {place}: no digit found: leave it out")
        images[place] = image
    return images


def image_shape(preparation: Preparation) -> tuple[int, ...]:
    """Return the shape of a stored image: without its channel if that is grey."""
    return preparation.shape if preparation.channels > 1 else preparation.shape[:2]


def _made(picture: Images, preparation: Preparation) -> Images | None:
    try:
        return preparation(picture).image
    except NoDigitError:
        return None


def _digits(pictures: Images) -> Iterator[Images | None]:
    for start in range(0, len(pictures), _CHUNK):
        for found in normalise_all(pictures[start : start + _CHUNK]):
            yield None if isinstance(found, NoDigitError) else found[0]
