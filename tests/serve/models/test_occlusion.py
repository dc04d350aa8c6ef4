import numpy as np
import pytest

from serve.imaging.preparation import Preparation
from serve.models.occlusion import occlude

IMAGE = np.zeros((28, 28), np.uint8)
IMAGE[4:24, 12:16] = 255
IMAGE[20, 8] = 51


class Pixels:
    """Says 7 the surer the brighter the pixel (5, 13), and the less sure the brighter (20, 8)."""

    preparation = Preparation("digit", 28, 28, 1)

    def __init__(self):
        self.asked = 0

    def probabilities(self, images):
        self.asked += len(images)
        found = np.full((len(images), 10), 0.01, np.float32)
        found[:, 7] = 0.6 * (images[:, 5, 13] / 255) + 0.3 - images[:, 20, 8] / 510
        return found


def hides(found, row, column, pixel):
    top, left = row * found.stride, column * found.stride
    return top <= pixel[0] < top + found.size and left <= pixel[1] < left + found.size


def test_the_answer_rests_on_what_it_falls_without():
    model = Pixels()
    found = occlude(model, IMAGE, 7)
    for row, column in np.ndindex(found.falls.shape):
        expected = 0.6 * hides(found, row, column, (5, 13)) - 0.1 * hides(
            found, row, column, (20, 8)
        )
        assert found.falls[row, column] == pytest.approx(expected, abs=1e-6)
    assert found.heat[5, 13] == pytest.approx(0.6)
    assert found.heat[20, 8] == pytest.approx(-0.1)
    assert not found.heat[:, 22:].any()
    assert model.asked < found.falls.size  # not where there is nothing to hide
    assert IMAGE.max() == 255  # nothing was hidden in the image itself


def test_of_another_digit_nothing_falls():
    assert not occlude(Pixels(), IMAGE, 3).falls.any()


class Red:
    """Says the first class the surer the redder the pixel (20, 30)."""

    preparation = Preparation("fit", 48, 64, 3)

    def probabilities(self, images):
        red = images[:, 20, 30, 0] / np.float32(255)
        return np.stack([red, 1 - red], axis=1)


def test_in_colour_and_of_any_size_the_mean_colour_hides():
    image = np.full((48, 64, 3), 40, np.uint8)
    image[16:24, 24:32] = 250, 40, 40
    found = occlude(Red(), image, 0)
    assert (found.size, found.stride, found.falls.shape) == (10, 3, (13, 19))
    for row, column in np.ndindex(found.falls.shape):
        assert (found.falls[row, column] > 0.7) == hides(found, row, column, (20, 30))
    assert found.heat.shape == (48, 64)
    assert found.heat[20, 30] == found.heat.max()
