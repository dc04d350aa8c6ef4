from dataclasses import replace

import numpy as np
import pytest

from pipeline.config.schema import Augmentation

STILL = Augmentation(*[0.0] * 9)


@pytest.fixture(scope="module")
def distorted(tensorflow):
    """A function from images, a limit and a seed to the distorted images, as floats."""
    from pipeline.training.distortions import distorted

    def images(pictures, seed=(1, 2), **limits):
        given = tensorflow.constant(pictures[..., None])
        result = np.asarray(distorted(given, replace(STILL, **limits), tensorflow.constant(seed)))
        assert result.dtype == np.uint8
        return result[..., 0].astype(float)

    return images


@pytest.fixture
def crosses():
    """80 images of a cross, 4 pixels thick."""
    image = np.zeros((28, 28), np.uint8)
    image[12:16, 4:24] = image[4:24, 12:16] = 200
    return np.tile(image, (80, 1, 1))


ALL = {"elastic": 2.0, "stroke_width": 0.8, "blurred": 0.5, "disturbed": 0.5}


@pytest.mark.parametrize("limits", [{}, *({name: value} for name, value in ALL.items())])
def test_a_share_of_the_images_changes_and_the_others_stay(distorted, crosses, limits):
    changed = (distorted(crosses, **limits) != crosses).any(axis=(1, 2)).sum()
    assert (changed == 0) if not limits else 30 <= changed <= 40


def test_a_seed_gives_the_same_distortions(distorted, crosses):
    first = distorted(crosses, **ALL)
    np.testing.assert_array_equal(first, distorted(crosses, **ALL))
    assert (first != distorted(crosses, seed=(1, 3), **ALL)).any()


def test_the_elastic_map_moves_ink_and_makes_none(distorted, crosses):
    flat = np.full((8, 28, 28), 90, np.uint8)
    np.testing.assert_array_equal(distorted(flat, elastic=3.0), flat)
    bent = distorted(crosses, elastic=1.5)[:40]
    assert bent.sum(axis=(1, 2)) == pytest.approx(crosses[0].sum(), rel=0.4)
    assert (bent[:, 14, 14] == 200).all()


def test_strokes_become_wider_and_thinner(distorted, crosses):
    ink = distorted(crosses, stroke_width=1.0).sum(axis=(1, 2)) / crosses[0].sum()
    assert ink.max() > 1.3
    assert ink.min() < 0.7


def test_a_disturbance_is_ground_faint_ink_noise_lines_or_a_hole(distorted, crosses):
    seen = distorted(crosses, disturbed=1.0)
    corner, centre = seen[:, 0, 0], seen[:, 14, 14]
    assert np.mean(corner > 5) > 0.3
    assert (centre < 100).any()
    assert seen.max() == 255
    assert np.mean((seen != crosses[0]).any(axis=(1, 2))) > 0.9
