"""Preparation of pictures for models of any input."""

import numpy as np
import pytest

from serve.imaging.normalise import normalise
from serve.imaging.preparation import CROP, DIGIT, FIT, Preparation

RANDOM = np.random.default_rng(5)


def described(shape, **more):
    return {"input": {"shape": shape, "dtype": "uint8", **more}}


@pytest.mark.parametrize("kind", [FIT, CROP])
@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 48, 3)])
def test_what_is_prepared_passes_unchanged(kind, shape):
    prepare = Preparation(kind, *shape)
    picture = RANDOM.integers(0, 256, (90, 50, 3), np.uint8)
    image = prepare(picture if shape[2] == 3 else picture[..., 0]).image
    assert image.shape == (shape if shape[2] == 3 else shape[:2])
    np.testing.assert_array_equal(prepare(image).image, image)


def test_fit_keeps_the_aspect_and_fills_with_the_border():
    picture = np.full((20, 40, 3), (200, 100, 50), np.uint8)
    picture[5:15, 10:30] = 0
    found = Preparation(FIT, 32, 32, 3)(picture)
    assert found.box == (0, 0, 40, 20)
    assert (found.image[:8] == (200, 100, 50)).all()  # 16 rows of the picture in the middle
    assert (found.image[24:] == (200, 100, 50)).all()
    assert (found.image[14:18, 10:22] == 0).all()


def test_crop_takes_the_middle():
    picture = np.zeros((20, 60), np.uint8)
    picture[:, 20:40] = 255
    found = Preparation(CROP, 10, 10, 1)(picture)
    assert found.box == (20, 0, 20, 20)
    assert (found.image[:, 1:-1] == 255).all()
    assert found.image.min() > 200  # smoothed with what is cut off


def test_a_digit_is_normalised():
    picture = np.full((60, 60), 255, np.uint8)
    picture[10:50, 28:33] = 0
    image = Preparation(DIGIT, 28, 28, 1)(picture).image
    np.testing.assert_array_equal(image, normalise(picture).image)


def test_a_thin_picture_keeps_a_pixel():
    assert Preparation(FIT, 16, 16, 1)(np.zeros((1, 900), np.uint8)).image.shape == (16, 16)
    assert Preparation(CROP, 16, 16, 1)(np.zeros((1, 900), np.uint8)).box[2:] == (1, 1)


def test_a_bundle_names_it():
    assert Preparation.of(described([28, 28, 1])) == (DIGIT, 28, 28, 1)
    assert Preparation.of(described([32, 16, 3], preparation=CROP)) == (CROP, 32, 16, 3)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (described([28, 28, 1], preparation="turn"), "unknown preparation 'turn'"),
        (described([32, 32, 1]), "digit"),
        (described([32, 32, 4], preparation=FIT), "fit"),
    ],
)
def test_what_a_bundle_names_is_checked(description, message):
    with pytest.raises(ValueError, match=message):
        Preparation.of(description)
