"""Each kind of corruption does to digits what MNIST-C's does, and the same from the same seed."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipeline.robustness.corruptions import KINDS, corrupt


@pytest.fixture(scope="module")
def digits():
    """Nine pictures of a ring and a bar, as large as a digit in MNIST."""
    picture = Image.new("L", (28, 28))
    ImageDraw.Draw(picture).ellipse((8, 5, 19, 15), outline=250, width=3)
    ImageDraw.Draw(picture).line((17, 13, 12, 22), fill=200, width=2)
    return np.stack([np.asarray(picture)] * 9)


def corrupted(digits, kind, seed=0):
    return corrupt(digits, kind, np.random.default_rng(seed))


def centre(images):
    """The centre of mass of each, (n, 2): row and column."""
    mass = images / images.sum(axis=(1, 2), keepdims=True)
    return np.stack([(mass * grid).sum(axis=(1, 2)) for grid in np.mgrid[:28, :28]], axis=1)


def spread(images):
    """The standard deviation of the mass of each, (n, 2): over rows and over columns."""
    mass = images / images.sum(axis=(1, 2), keepdims=True)
    middle = centre(images)[:, :, None, None]
    apart = (np.mgrid[:28, :28] - middle) ** 2
    return np.sqrt((mass[:, None] * apart).sum(axis=(2, 3)))


@pytest.mark.parametrize("kind", KINDS)
def test_each_picture_changes_the_same_from_the_same_seed(digits, kind):
    before = digits.copy()
    found = corrupted(digits, kind)
    np.testing.assert_array_equal(digits, before)
    assert (found.dtype, found.shape) == (np.uint8, digits.shape)
    assert (found != digits).any(axis=(1, 2)).all()
    np.testing.assert_array_equal(found, corrupted(digits, kind))
    assert corrupt(digits[:0], kind, np.random.default_rng(0)).shape == (0, 28, 28)


@pytest.mark.parametrize(
    "kind", sorted({*KINDS} - {"scale", "brightness", "stripe", "canny_edges"})
)
def test_what_is_random_differs_from_picture_to_picture(digits, kind):
    found = corrupted(digits, kind)
    assert len({image.tobytes() for image in found}) > 1


def test_there_are_the_fifteen_kinds_of_mnist_c():
    assert len(set(KINDS)) == 15
    with pytest.raises(KeyError):
        corrupt(np.zeros((1, 28, 28), np.uint8), "snow", np.random.default_rng(0))


def test_brightness_lifts_ground_and_digit_by_half(digits):
    np.testing.assert_array_equal(
        corrupted(digits, "brightness"), np.minimum(digits + np.rint(127.5), 255)
    )


def test_stripe_inverts_seven_columns_at_each_side(digits):
    found = corrupted(digits, "stripe")
    np.testing.assert_array_equal(found[:, :, 7:21], digits[:, :, 7:21])
    for side in (slice(None, 7), slice(21, None)):
        np.testing.assert_array_equal(found[:, :, side], 255 - digits[:, :, side])


def test_translate_moves_by_three_pixels_each_way(digits):
    moved = centre(corrupted(digits, "translate")) - centre(digits)
    np.testing.assert_allclose(np.abs(moved), 3)
    assert len({tuple(np.sign(way)) for way in moved}) > 1


def test_scale_shrinks_to_seven_tenths_about_the_middle(digits):
    found = corrupted(digits, "scale")
    np.testing.assert_allclose(spread(found), 0.7 * spread(digits), rtol=0.05)
    np.testing.assert_allclose(centre(found) - 13.5, 0.7 * (centre(digits) - 13.5), atol=0.1)


@pytest.mark.parametrize(("kind", "slope"), [("rotate", np.tan(0.4)), ("shear", np.sin(0.4))])
def test_rotate_and_shear_lean_a_bar_to_both_sides(kind, slope):
    bar = np.zeros((20, 28, 28), np.uint8)
    bar[:, 4:24, 13:15] = 255
    found = corrupted(bar, kind)
    rows, columns = np.mgrid[-13.5:14, -13.5:14]
    lean = (found * rows * columns).sum(axis=(1, 2)) / (found * rows**2).sum(axis=(1, 2))
    np.testing.assert_allclose(np.abs(lean), slope, rtol=0.05)
    assert len(set(np.sign(lean))) == 2


def test_noise_hits_as_much_as_it_should(digits):
    many = np.repeat(digits, 20, axis=0)
    ground = many == 0
    assert (corrupted(many, "shot_noise")[ground] == 0).all()
    impulses = corrupted(many, "impulse_noise")[ground]
    assert set(np.unique(impulses)) == {0, 255}
    assert (impulses == 255).mean() == pytest.approx(0.17 / 2, abs=0.005)


@pytest.mark.parametrize("kind", ["glass_blur", "motion_blur"])
def test_blur_keeps_the_mass_and_dims_the_brightest(digits, kind):
    found = corrupted(digits, kind)
    np.testing.assert_allclose(found.mean(axis=(1, 2)), digits.mean(axis=(1, 2)), rtol=0.03)
    assert (found.max(axis=(1, 2)) <= digits.max()).all()
    assert found.std() < 0.9 * digits.std()


def test_fog_covers_the_ground_and_takes_contrast(digits):
    found = corrupted(np.repeat(digits, 10, axis=0), "fog").astype(float)
    ground = np.repeat(digits, 10, axis=0) == 0
    assert 80 < found[ground].mean() < 110
    assert found[~ground].mean() - found[ground].mean() < 0.35 * digits[digits > 0].mean()


def test_spatter_is_dark_grey_and_hides_what_is_below(digits):
    found = corrupted(digits, "spatter")
    assert found[digits == 0].max() == 63
    assert (found[digits > 200] < 100).any()


@pytest.mark.parametrize("kind", ["dotted_line", "zigzag"])
def test_lines_only_add_light_from_side_to_side(digits, kind):
    found = corrupted(digits, kind)
    assert (found >= digits).all()
    columns = (found > digits).any(axis=(0, 1))
    assert columns[[3, 14, 23]].all()
    assert not columns[[0, 1, 27]].any()


def test_edges_are_thin_white_and_around_the_digit():
    square = np.zeros((1, 28, 28), np.uint8)
    square[:, 7:20, 7:20], square[:, 8:19, 8:19] = 128, 255
    found = corrupted(square, "canny_edges")[0]
    assert set(np.unique(found)) == {0, 255}
    assert (found[10:17] > 0).sum(axis=1).tolist() == [2] * 7  # one pixel at each side
    assert not found[10:17, 10:17].any()
