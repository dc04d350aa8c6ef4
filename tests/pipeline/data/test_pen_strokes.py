import numpy as np
import pytest

from pipeline.data import pen_strokes
from serve.imaging.placement import normalised_box


@pytest.fixture(scope="module")
def drawn():
    return pen_strokes.split(1000, seed=7)


def widths(images):
    return [np.ptp(np.flatnonzero(image.any(axis=0))) + 1 for image in images]


def test_a_seed_gives_the_same_digits_each_time(drawn):
    again, other = pen_strokes.split(1000, seed=7), pen_strokes.split(1000, seed=8)
    for name in ("images", "labels", "index"):
        np.testing.assert_array_equal(getattr(drawn, name), getattr(again, name))
    assert (drawn.images != other.images).any(axis=(1, 2)).all()


def test_fours_and_nines_are_drawn_twice_as_often_as_others_in_no_order(drawn):
    counts = np.bincount(drawn.labels) / 1000 * 12
    np.testing.assert_allclose(counts, [1, 1, 1, 1, 2, 1, 1, 1, 1, 2], atol=0.02)
    assert len(set(drawn.labels[:30])) > 5
    assert set(drawn.index) == {-1}


def test_they_are_placed_as_the_service_places_digits(drawn):
    assert np.mean([normalised_box(image) is not None for image in drawn.images]) > 0.95


def test_no_two_are_alike_and_ones_are_drawn_with_and_without_flag_and_foot(drawn):
    assert len({image.tobytes() for image in drawn.images}) == 1000
    ones = widths(drawn.images[drawn.labels == 1])
    assert min(ones) <= 4
    assert max(ones) >= 15


@pytest.mark.parametrize("digit", range(10))
def test_the_forms_of_a_template_can_be_blended(digit):
    for forms in pen_strokes.TEMPLATES[digit]:
        assert len({tuple(map(len, form)) for form in forms}) == 1


def test_some_are_bitmaps_of_few_pixels_without_greys_and_none_is_empty():
    random = np.random.default_rng(1)
    drawn = [pen_strokes.digit(random, digit % 10) for digit in range(200)]
    bitmaps = [image for image in drawn if len(image) < 60]
    assert 40 < len(bitmaps) < 80
    assert all(set(np.unique(image)) == {0, 255} for image in bitmaps)
    assert all(image.any() for image in drawn)


def test_pressure_thins_a_line_towards_its_end():
    canvas = pen_strokes.Image.new("L", (60, 60))
    pen_strokes.draw(canvas, np.array([[5.0, 30.0], [30.0, 30.0], [55.0, 30.0]]), 20, (1.0, 0.2))
    inked = (np.asarray(canvas) > 0).sum(axis=0)
    assert inked[8] > 1.4 * inked[54]
