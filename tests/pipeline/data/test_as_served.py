import numpy as np
import pytest

from pipeline.config import PipelineError, paths
from pipeline.data import as_served, dataset
from pipeline.data.dataset import Split, Splits

FILE = paths.processed("mnist")


@pytest.fixture
def saved(trained):
    """Saves the test split of `trained` with one image changed, and gives it as it was."""

    def save(place, change):
        test = Split(trained.test.images.copy(), trained.test.labels, trained.test.index)
        test.images[place] = change(test.images[place])
        dataset.save(Splits(trained.train, trained.validation, test), FILE)
        return trained.test

    return save


def test_an_image_as_mnist_has_it_stays_as_it_is(saved):
    test = saved(0, lambda image: image)
    loaded = as_served.load(FILE, "test")
    for attribute in ("images", "labels", "index"):
        np.testing.assert_array_equal(getattr(loaded, attribute), getattr(test, attribute))


def test_an_inverted_one_becomes_what_the_model_knows(saved):
    test = saved(7, lambda image: 255 - image)
    np.testing.assert_array_equal(as_served.load(FILE, "test").images, test.images)


def test_an_image_that_shows_nothing_is_named(saved):
    saved(7, np.zeros_like)
    with pytest.raises(PipelineError, match=r"mnist.npz: image 7 of the test split: no digit"):
        as_served.load(FILE, "test")
