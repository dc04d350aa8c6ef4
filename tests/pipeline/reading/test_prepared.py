"""One road for pixels: what is stored is what the service would see."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.config import PipelineError
from pipeline.data import pen_strokes
from pipeline.reading.prepared import prepared
from serve.imaging.preparation import Preparation

FOLDER = Path("data/raw/some")
KINDS = {
    "digit": Preparation("digit", 28, 28, 1),
    "fit": Preparation("fit", 24, 30, 1),
    "crop": Preparation("crop", 30, 24, 1),
    "fit in colour": Preparation("fit", 24, 30, 3),
}


def pictures(preparation, size, count=6):
    """Drawn digits of a size, bright on dark, in the channels that the preparation takes."""
    drawn = pen_strokes.split(count, 1).images
    larger = np.zeros((count, *size), np.uint8)
    larger[:, 2:30, 3:31] = drawn
    return np.stack([larger] * 3, axis=-1) if preparation.channels == 3 else larger


@pytest.mark.parametrize("size", [(36, 40), (40, 34)])
@pytest.mark.parametrize("preparation", KINDS.values(), ids=KINDS)
def test_images_are_what_the_service_makes_of_the_pictures(preparation, size):
    given = pictures(preparation, size)
    found = prepared(given, preparation, FOLDER)
    for picture, image in zip(given, found, strict=True):
        np.testing.assert_array_equal(image, preparation(picture).image)


@pytest.mark.parametrize("preparation", KINDS.values(), ids=KINDS)
def test_what_is_stored_passes_the_service_unchanged(preparation):
    stored = prepared(pictures(preparation, (36, 40)), preparation, FOLDER)
    for image in stored:
        np.testing.assert_array_equal(preparation(image).image, image)


def test_many_digits_are_prepared_as_each_alone(monkeypatch):
    monkeypatch.setattr("pipeline.reading.prepared._CHUNK", 4)
    given = np.roll(pen_strokes.split(10, 2).images, 3, axis=1)
    found = prepared(given, KINDS["digit"], FOLDER)
    for picture, image in zip(given, found, strict=True):
        np.testing.assert_array_equal(image, KINDS["digit"](picture).image)


def test_a_single_channel_may_be_written_out():
    grey = pictures(KINDS["fit"], (36, 40))[..., None]
    assert prepared(grey, KINDS["fit"], FOLDER).shape == (6, 24, 30)


@pytest.mark.parametrize(("kind", "other"), [("fit", "fit in colour"), ("fit in colour", "fit")])
def test_other_channels_are_refused(kind, other):
    with pytest.raises(
        PipelineError, match=r"data/raw/some.*channels, but data\.input\.channels is"
    ):
        prepared(pictures(KINDS[other], (36, 40)), KINDS[kind], FOLDER)


@pytest.mark.parametrize("side", [28, 40])
def test_an_image_without_a_digit_is_named(side):
    given = np.zeros((2, side, side), np.uint8)
    given[0, :28, :28] = pen_strokes.split(1, 1).images[0]
    with pytest.raises(PipelineError, match="image 1: no digit found"):
        prepared(given, KINDS["digit"], FOLDER)
