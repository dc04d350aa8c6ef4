import numpy as np

from pipeline.data import as_served


def test_images_become_what_the_model_knows_or_are_named(trained):
    images = trained.test.images[:4].copy()
    images[1] = 255 - images[1]
    images[2] = 0
    prepared, found = as_served.normalised(images)
    assert found.tolist() == [True, True, False, True]
    for place in (0, 1, 3):
        np.testing.assert_array_equal(prepared[place], trained.test.images[place])
    assert not prepared[2].any()
