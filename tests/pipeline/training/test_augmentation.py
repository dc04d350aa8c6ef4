import numpy as np
import pytest

from pipeline.config.data_schema import Changes
from pipeline.config.schema import Augmentation
from pipeline.data.dataset import Split

STILL = Augmentation(*[0.0] * 9)


@pytest.fixture(scope="module")
def augmentation(tensorflow):
    from pipeline.training import augmentation

    return augmentation


@pytest.fixture
def split():
    """100 images, each of the one brightness that is its label."""
    labels = np.arange(100, dtype=np.uint8)
    images = np.broadcast_to(labels[:, None, None], (100, 28, 28)).copy()
    return Split(images, labels, np.arange(100, dtype=np.int32))


def content(dataset):
    images, labels = zip(*dataset, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def test_an_epoch_shows_images_once_with_their_labels(augmentation, split):
    images, labels = content(augmentation.batches(split, 16, STILL, seed=1)(0))
    assert images.shape == (96, 28, 28, 1)
    assert images.dtype == np.uint8
    assert np.array_equal(images[:, 5, 5, 0], labels)
    assert len(set(labels)) == 96


def test_order_depends_on_seed_and_epoch_alone(augmentation, split):
    def order(seed, epoch):
        return tuple(content(augmentation.batches(split, 16, STILL, seed)(epoch))[1])

    assert order(1, 0) == order(1, 0)
    assert len({order(1, 0), order(1, 1), order(2, 0), order(2, 1)}) == 4


def test_seed_epoch_and_step_alone_decide_the_distortions(augmentation, split):
    limits = Augmentation(
        *[0.0] * 4, elastic=2.0, stroke_width=0.5, blurred=1.0, disturbed=1.0, drawn=0
    )
    same = Split(np.tile(bar().images[:1], (48, 1, 1)), split.labels[:48] * 0, split.index[:48])

    def images(seed, epoch):
        return content(augmentation.batches(same, 16, limits, seed)(epoch))[0]

    first = images(1, 0)
    np.testing.assert_array_equal(first, images(1, 0))
    steps = [first[place : place + 16].tobytes() for place in (0, 16, 32)]
    assert len({*steps, images(1, 1).tobytes(), images(2, 0).tobytes()}) == 5


def test_a_batch_larger_than_the_data_is_the_data(augmentation, split):
    assert augmentation.steps_per_epoch(len(split), 500) == 1
    assert len(content(augmentation.batches(split, 500, STILL, seed=1)(0))[1]) == 100


def bar(thickness=4):
    """Copies of an image with a bright horizontal bar."""
    images = np.zeros((200, 28, 28), np.uint8)
    images[:, 14 - thickness // 2 : 14 + thickness // 2, 4:24] = 255
    return Split(images, np.zeros(200, np.uint8), np.arange(200, dtype=np.int32))


def centres(images):
    """Centre of mass in rows and columns, (n, 2), relative to the image's."""
    weights = images[..., 0] / images.sum(axis=(1, 2, 3), keepdims=True)[..., 0]
    grid = np.arange(28) - 13.5
    return np.stack([(weights.sum(2) * grid).sum(1), (weights.sum(1) * grid).sum(1)], axis=1)


@pytest.fixture
def augmented(augmentation):
    """The images of an epoch, as floats, under augmentation by such limits."""

    def images(split, *limits):
        epoch = augmentation.batches(split, 50, Augmentation(*limits, *[0.0] * 5), seed=3)(0)
        return content(epoch)[0].astype(float)

    return images


def test_shift_moves_up_to_its_limit_both_ways(augmented):
    moved = centres(augmented(bar(), 0.0, 2.0, 0.0, 0.0))
    assert np.abs(moved).max() <= 2.05
    assert (moved.min(axis=0) < -1.5).all()
    assert (moved.max(axis=0) > 1.5).all()


def test_rotation_turns_about_the_centre(augmented):
    images = augmented(bar(), 20.0, 0.0, 0.0, 0.0)
    assert np.abs(centres(images)).max() < 0.2
    # The slope of a line through the bright pixels is the tangent of the angle.
    grid = np.arange(28) - 13.5
    weights = images[..., 0]
    slope = (weights * grid[:, None] * grid).sum((1, 2)) / (weights * grid**2).sum((1, 2))
    angles = np.degrees(np.arctan(slope))
    assert 15 < angles.max() <= 20.5
    assert -20.5 <= angles.min() < -15


def test_zoom_changes_the_size_of_both_axes(augmented):
    ink = augmented(bar(8), 0.0, 0.0, 0.2, 0.0).sum(axis=(1, 2, 3)) / 255
    assert ink.max() > 8 * 20 * 1.2
    assert ink.min() < 8 * 20 * 0.85


def test_shear_slants_without_turning(augmented):
    tall = bar()
    tall = Split(tall.images.transpose(0, 2, 1).copy(), tall.labels, tall.index)
    images = augmented(tall, 0.0, 0.0, 0.0, 0.3)
    rows = images[..., 0][:, [6, 21]]
    columns = (rows * np.arange(28)).sum(2) / rows.sum(2)
    slant = columns[:, 1] - columns[:, 0]
    assert np.abs(slant).max() > 2.5
    assert np.abs(centres(images)).max() < 0.3


def test_outside_of_a_picture_on_white_is_white(augmentation):
    white = Split(np.full((40, 20, 32), 250, np.uint8), np.zeros(40, np.uint8), np.arange(40))
    limits = Augmentation(20.0, 4.0, 0.2, 0.2, 2.0, 0.7, 0.5, 0.0, 0.0)
    images, _ = content(augmentation.batches(white, 20, limits, seed=1, black=False)(0))
    assert images.shape == (40, 20, 32, 1)
    assert images.min() >= 249
    assert content(augmentation.batches(white, 20, limits, seed=1)(0))[0].min() < 50


def coloured():
    images = np.zeros((400, 20, 32, 3), np.uint8)
    images[:, :, :16] = (180, 90, 60)
    return Split(images, np.zeros(400, np.uint8), np.arange(400, dtype=np.int32))


def test_pictures_are_mirrored_only_where_the_data_set_says_so(augmentation):
    flipped = content(augmentation.batches(coloured(), 50, STILL, 1, Changes(flip=0.5))(0))[0]
    assert set(map(bytes, flipped)) == {bytes(i) for i in (flipped[0], flipped[0][:, ::-1])}
    mirrored = (flipped[:, 0, 0, 0] == 0).mean()
    assert 0.4 < mirrored < 0.6
    still = content(augmentation.batches(coloured(), 50, STILL, 1)(0))[0]
    assert (still == coloured().images).all()


def test_colours_change_up_to_their_limit(augmentation):
    given = coloured()
    given.images[:, :, 16:] = (100, 100, 100)
    changed = content(augmentation.batches(given, 50, STILL, 1, Changes(colour=0.3))(0))[0]
    brightness = changed.mean((1, 2, 3)) / given.images.mean()
    assert 0.65 < brightness.min() < 0.85
    assert 1.15 < brightness.max() < 1.35
    assert len({bytes(image) for image in changed}) > 300


def test_colour_pictures_have_no_pen(augmentation, configured):
    grey, colour = configured(3), configured(3, "data.preparation=fit", "data.input.channels=3")
    assert augmentation.limits_of(grey) == grey.augmentation
    without = augmentation.limits_of(colour)
    assert (without.stroke_width, without.disturbed) == (0, 0)
    assert without.elastic == grey.augmentation.elastic


def test_an_epoch_shows_each_image_as_often_as_the_data_set_says(augmentation, split):
    _, labels = content(augmentation.batches(split, 50, STILL, 1, Changes(repeat=3))(0))
    assert len(labels) == 3 * len(split)
    np.testing.assert_array_equal(np.bincount(labels), 3 * np.bincount(split.labels))
