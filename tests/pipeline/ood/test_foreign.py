"""Pictures of none of the classes, for any data set; and the threshold of the energy."""

import numpy as np
import pytest

from pipeline.ood import foreign
from pipeline.ood.threshold import fit_energy
from serve.imaging.preparation import CROP, DIGITS, FIT, Preparation
from serve.models.predictor import Energy, energy

RANDOM = np.random.default_rng(2)


def test_what_is_no_digit_to_the_service_is_black():
    found = foreign.for_evaluation(np.full((5, 28, 28), 9, np.uint8), DIGITS, 1)
    assert {each.shape for each in found.values()} == {(300, 28, 28)}


@pytest.mark.parametrize("shape", [(28, 28, 1), (20, 32, 3)])
def test_each_kind_has_images_of_the_input_and_they_are_the_same_each_time(shape):
    prepared = Preparation(FIT if shape[2] == 1 else CROP, *shape)
    images = RANDOM.integers(0, 256, (40, *(shape if shape[2] == 3 else shape[:2])), np.uint8)
    found = foreign.for_evaluation(images, prepared, 7)
    assert {each.shape for each in found.values()} == {(300, *images.shape[1:])}
    again = foreign.for_evaluation(images, prepared, 7)
    for kind, some in found.items():
        np.testing.assert_array_equal(some, again[kind])
        assert len({bytes(image) for image in some}) > 30
    other = foreign.for_evaluation(images, prepared, 8)
    assert not any((found[kind] == other[kind]).all() for kind in found)


def test_what_is_scrambled_has_the_same_pixels_elsewhere():
    images = RANDOM.integers(0, 256, (3, 16, 16), np.uint8)
    scrambled = foreign.for_evaluation(images, Preparation(FIT, 16, 16, 1), 1)["scrambled images"]
    for image, other in zip(images, scrambled[:3], strict=True):
        np.testing.assert_array_equal(np.sort(image, None), np.sort(other, None))
        assert (image != other).any()


def test_all_but_one_per_cent_of_validation_images_reach_the_threshold():
    logits = RANDOM.normal(0, 4, (2_000, 26)).astype(np.float32)
    fitted = fit_energy(logits)
    scores = Energy.of(fitted)(logits)
    assert (scores < fitted["threshold"]).mean() == pytest.approx(0.01, abs=0.001)
    assert np.median(scores) == pytest.approx(0.982, abs=0.001)
    assert (np.diff(scores[np.argsort(energy(logits))]) >= 0).all()


def test_equal_energies_have_a_score():
    fitted = fit_energy(np.zeros((10, 4), np.float32))
    assert Energy.of(fitted)(np.zeros((1, 4), np.float32)) == pytest.approx(0.5, abs=1e-3)
