import io

import numpy as np
import pytest

from serve.models import drift_reference
from serve.models.drift_reference import FEATURES, Reference


def column(images, name):
    return drift_reference.features(np.stack(images))[:, FEATURES.index(name)]


def bar(top, left, height, width, ink=255):
    image = np.zeros((28, 28), np.uint8)
    image[top : top + height, left : left + width] = ink
    return image


def test_features_are_what_their_names_say():
    images = [bar(4, 12, 20, 4), bar(0, 20, 20, 2), bar(4, 12, 20, 4, ink=100)]
    ink = [80 / 784, 40 / 784, 80 / 784 * 100 / 255]
    np.testing.assert_allclose(column(images, "ink"), ink, rtol=1e-6)
    np.testing.assert_allclose(column(images, "row"), [13.5, 9.5, 13.5], rtol=1e-6)
    np.testing.assert_allclose(column(images, "column"), [13.5, 20.5, 13.5], rtol=1e-6)
    strokes = column(images, "stroke")
    assert strokes[0] > 1.5 * strokes[1] > 2
    assert strokes[0] == pytest.approx(strokes[2])


def test_an_image_without_ink_has_features_too():
    found = drift_reference.features(np.zeros((1, 28, 28), np.uint8))
    assert found.tolist() == [[0, 13.5, 13.5, 0]]
    assert drift_reference.features(np.zeros((0, 28, 28), np.uint8)).shape == (0, 4)


@pytest.mark.parametrize(("images", "kept"), [(7, 7), (2_500, 2_500), (6_000, 2_500)])
def test_of_many_images_some_are_taken_from_everywhere(images, kept):
    chosen = drift_reference.sample_indices(images)
    assert len(np.unique(chosen)) == kept
    assert chosen[0] == 0
    assert images - 3 <= chosen[-1] < images


def test_what_is_written_is_read():
    given = Reference(np.eye(10, dtype="f4"), np.ones((10, 4), "f4"))
    file = io.BytesIO()
    np.savez(file, **given._asdict())
    found = drift_reference.read(file.getvalue())
    np.testing.assert_array_equal(found.probabilities, given.probabilities)
    np.testing.assert_array_equal(found.features, given.features)


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"probabilities": np.eye(10)},
        {"probabilities": np.eye(10), "features": np.ones((9, 4))},
        {"probabilities": np.ones((0, 10)), "features": np.ones((0, 4))},
        {"probabilities": np.eye(9), "features": np.ones((9, 4))},
        {"probabilities": np.eye(10, dtype="f4"), "features": np.full((10, 4), np.nan, "f4")},
        {"probabilities": np.full((1, 10), np.inf, "f4"), "features": np.ones((1, 4), "f4")},
        {"probabilities": np.full((1, 10), "a"), "features": np.ones((1, 4), "f4")},
        {"probabilities": np.array([{}]), "features": np.ones((1, 4))},  # a pickle
    ],
)
def test_what_is_no_reference_is_refused(arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    with pytest.raises(ValueError, match=r"no reference\.npz"):
        drift_reference.read(file.getvalue())


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 half of one"])
def test_what_is_no_archive_is_refused(content):
    with pytest.raises(ValueError, match=r"no reference\.npz"):
        drift_reference.read(content)
