"""The pictures of an explanation."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from serve.decoding.picture import Reading
from serve.imaging.normalise import Normalised
from serve.imaging.preparation import Preparation
from serve.prediction.explanation import explain, small_picture

ORANGE, BLUE = (255, 90, 0), (40, 130, 255)


class Pixel:
    """Says 7 the surer the brighter the pixel (14, 14) if `weight` is above 0, else the darker."""

    preparation = Preparation("digit", 28, 28, 1)

    def __init__(self, weight):
        self.weight = weight

    def probabilities(self, images):
        found = np.full((len(images), 10), 0.5, np.float32)
        found[:, 7] += self.weight * (images[:, 14, 14] / 255)
        return found


def pixels(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))).astype(int)


@pytest.mark.parametrize(("weight", "colour"), [(0.4, ORANGE), (-0.4, BLUE), (0, None)])
def test_the_map_is_orange_for_the_answer_blue_against_it_and_else_grey(weight, colour):
    image = np.zeros((28, 28), np.uint8)
    image[4:24, 12:16] = 255
    ink, box = image[4:24, 12:16], (12, 4, 4, 20)
    reading = Reading(image, Normalised(image, ink, box), box)
    shown = pixels(explain(reading, Pixel(weight), 7)["occlusion"]["image"])
    coloured = np.ptp(shown, axis=2) > 0
    assert coloured.any() == (colour is not None)
    if colour:
        strongest = shown.reshape(-1, 3)[np.ptp(shown, axis=2).argmax()]
        assert np.abs(strongest - colour).max() < 60
    assert not coloured[:, :40].any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (900, 1), (100, 60), (1000, 700)])
def test_a_box_as_large_as_the_picture_is_seen_whole(shape):
    grey = np.full(shape, 128, np.uint8)
    shown = pixels(small_picture(grey, (0, 0, shape[1], shape[0])))
    framed = np.ptp(shown, axis=2) > 0
    for edge in (framed[0], framed[-1], framed[:, 0], framed[:, -1]):
        assert edge.all()
