from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from serve.image import NoDigitError, centred

MNIST = Path(__file__).parents[3] / "shared/mnist"


def bar(height: int, width: int, canvas: int = 200, top: int = 3, left: int = 7) -> NDArray:
    """An upright stroke with a heavy foot, away from the middle."""
    picture = np.zeros((canvas, canvas), np.uint8)
    picture[top : top + height, left : left + width // 2] = 255
    picture[top + height - height // 4 : top + height, left : left + width] = 200
    return picture


def box(image: NDArray) -> tuple[int, int]:
    rows, columns = np.nonzero(image)
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


def centre_of_mass(image: NDArray) -> tuple[float, float]:
    places, mass = np.indices(image.shape), image / image.sum()
    return float((places[0] * mass).sum()), float((places[1] * mass).sum())


SHAPES = [(100, 40), (40, 100), (150, 150), (17, 9), (20, 20), (8, 5)]


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_centre_of_mass_comes_to_the_centre(height, width):
    image = centred(bar(height, width))
    assert (image.shape, image.dtype) == ((28, 28), np.uint8)
    assert centre_of_mass(image) == pytest.approx((14, 14), abs=0.51)


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_longest_side_becomes_20_and_the_aspect_ratio_stays(height, width):
    scale = 20 / max(height, width)
    assert box(centred(bar(height, width))) == pytest.approx((height * scale, width * scale), abs=1)


def test_where_the_digit_lies_in_the_picture_does_not_matter():
    image = centred(bar(90, 50))
    np.testing.assert_array_equal(image, centred(bar(90, 50, canvas=150, top=60, left=100)))


def test_a_thin_line_keeps_a_pixel_of_width():
    assert box(centred(bar(180, 2))) == (20, 1)


def test_a_digit_heavy_at_one_end_stays_whole_inside():
    picture = np.zeros((100, 100), np.uint8)
    picture[:, 48:52] = 5  # next to nothing ...
    picture[95:, 40:60] = 255  # ... above a heavy foot
    image = centred(picture)
    assert image[0].any()
    assert box(image)[0] == 20


def test_8x8_pictures_work():
    picture = np.zeros((8, 8), np.uint8)
    picture[:, 3:5] = 255
    image = centred(picture)
    assert box(image) == (20, 5)
    assert image.max() == 255


def test_an_image_normalised_already_passes_unchanged():
    image = centred(bar(100, 60))
    np.testing.assert_array_equal(centred(image), image)


def test_the_picture_given_is_left_alone():
    picture = bar(20, 10)
    before = picture.copy()
    centred(picture)[:] = 1
    np.testing.assert_array_equal(picture, before)


def test_an_empty_picture_is_refused():
    with pytest.raises(NoDigitError):
        centred(np.zeros((50, 60), np.uint8))


def test_ink_that_vanishes_in_scaling_is_refused():
    picture = np.zeros((2000, 2000), np.uint8)
    picture[0, 0] = picture[-1, -1] = 1
    with pytest.raises(NoDigitError):
        centred(picture)


@pytest.mark.slow
@pytest.mark.skipif(not MNIST.is_dir(), reason=f"no MNIST in {MNIST}")
def test_mnist_itself_passes_unchanged():
    content = gzip.decompress((MNIST / "t10k-images-idx3-ubyte.gz").read_bytes())
    images = np.frombuffer(content, np.uint8, offset=16).reshape(-1, 28, 28)
    same = [np.array_equal(centred(image), image) for image in images]
    assert np.mean(same) > 0.999
