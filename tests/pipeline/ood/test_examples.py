"""Pictures of what is no digit: reproducible, normalised, none that passes for a 1."""

import numpy as np
import pytest
from PIL import Image

from pipeline.data.dataset import Split, no_images
from pipeline.ood import drawings, examples
from serve.imaging.normalise import normalise
from serve.imaging.placement import crop

NONE = examples.Examples(no_images(), np.empty(0, np.uint8))


def some_digits(seed):
    images, labels = examples.printed(80, np.random.default_rng(seed))
    return Split(images, labels, np.arange(80, dtype=np.int32))


@pytest.fixture(scope="module")
def digits():
    return some_digits(7)


@pytest.fixture(scope="module", autouse=True)
def _few():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examples, "_EVALUATED", 20)
        yield


@pytest.fixture(scope="module")
def fresh(digits):
    return examples.for_evaluation(digits, 42)


# Mean brightness of each kind: the order and use of random numbers decide models/ and data/.
BRIGHTNESS = {
    **{"letters": 43.59, "signs": 40.94, "pen-drawn letters": 38.08, "pen-drawn signs": 33.49},
    **{"strokes": 38.96, "scribbles": 50.48, "photographs": 19.82, "noise": 46.6},
    **{"scrambled digits": 40.84, "two digits": 34.57, "turned digits": 37.58},
    **{"other scripts": 47.19, "pictograms": 44.38, "redrawn digits": 39.59},
    **{"printed digits": 43.59, "pen-drawn digits": 37.47, "digits as bitmaps": 50.1},
    "pen-drawn digits as bitmaps": 40.17,
}


def test_the_drawings_are_the_same_as_ever(fresh):
    assert {kind: images.mean() for kind, images in fresh.items()} == pytest.approx(
        BRIGHTNESS, abs=0.02
    )


def test_each_kind_is_there_and_normalised(fresh):
    assert list(fresh) == [*examples.KINDS, *examples.DIGITS]
    assert examples.UNSEEN == ("other scripts", "pictograms")  # not fitted to
    for kind in examples.KINDS:
        images = fresh[kind]
        assert images.shape == (len(images), 28, 28)
        assert images.dtype == np.uint8
        ink = (images > 60).any(axis=1)
        width = 28 - ink.argmax(axis=1) - ink[:, ::-1].argmax(axis=1)
        assert width.min() > 8, kind
        assert len({image.tobytes() for image in images}) > 0.7 * len(images), kind


def test_the_seed_decides(digits, fresh):
    again, other = examples.for_evaluation(digits, 42), examples.for_evaluation(digits, 43)
    for kind, images in fresh.items():
        np.testing.assert_array_equal(images, again[kind])
        assert (images != other[kind]).any()


def test_what_is_fitted_has_its_labels_and_nothing_that_is_evaluated(fresh):
    train = some_digits(8)
    drawn = examples.for_training(train, no_images(), 42)
    assert len(drawn.images) == len(drawn.labels) == 196
    assert (drawn.labels == 10).sum() == 68
    assert drawn.images[80:].mean() == pytest.approx(37.30, abs=0.02)
    np.testing.assert_array_equal(drawn.images[:80], train.images)
    np.testing.assert_array_equal(drawn.labels[:80], train.labels)
    assert set(drawn.labels) == set(range(11))
    rest = {image.tobytes() for image in drawn.images[drawn.labels == 10]}
    for kind in examples.KINDS:
        assert not rest & {image.tobytes() for image in fresh[kind]}, kind


def test_what_users_report_is_added_up_to_a_tenth_and_moves_nothing_else():
    train, reported = some_digits(8), np.arange(20 * 784).reshape(20, 28, 28).astype(np.uint8)
    plain, drawn = (examples.for_training(train, some, 42) for some in (no_images(), reported))
    count = len(plain.images)
    np.testing.assert_array_equal(drawn.images[:count], plain.images)
    np.testing.assert_array_equal(drawn.labels[:count], plain.labels)
    assert drawn.labels[count:].tolist() == [examples.NOT_A_DIGIT] * 8
    known = {image.tobytes() for image in reported}
    assert {image.tobytes() for image in drawn.images[count:]} <= known


def test_a_redrawn_digit_that_shows_nothing_is_drawn_again(digits):
    """As of feedback with pictures of anything."""
    pictures = iter([np.zeros((56, 56), np.uint8), digits.images[0], digits.images[1]])
    random = np.random.default_rng(0)
    some = examples.Examples(digits.images, digits.labels)
    drawn = examples.redrawn(some, 2, random, lambda random, digit: next(pictures))
    np.testing.assert_array_equal(drawn.images, digits.images[:2])


def test_letters_by_pen_are_of_their_alphabet_and_look_like_no_digit():
    """The characters that a person takes for digits are left out by name."""
    names = drawings.pen_letters()
    assert not set("bBDgGIiloOqQsSzZδイチフ") & set(names)
    assert {"A", "j", "φ", "θ", "arrow", "ホ"} <= set(names)
    random = np.random.default_rng(3)
    assert len({drawings.letter(random, ["A"]).tobytes() for _ in range(30)}) == 30


def test_a_turned_digit_is_one_of_those_that_are_none_then(digits):
    random = np.random.default_rng(3)
    ones = np.ones_like(digits.labels)
    ones[:1] = 6
    six = np.asarray(drawings.turned(random, digits.images, ones))
    mirrored = np.asarray(Image.fromarray(digits.images[0, :, ::-1].copy()).resize((56, 56), 3))
    turned = [drawings.turned(random, digits.images, ones) for _ in range(20)]
    assert any(np.array_equal(mirrored, picture) for picture in [six, *turned])


def test_a_bitmap_is_small_and_has_two_levels_and_many_are_stretched_to_a_square(digits):
    random, wide = np.random.default_rng(3), 0
    for image in digits.images:
        picture = drawings.bitmap(random, image)
        assert max(picture.shape) <= 42
        assert set(np.unique(picture)) == {0, 255}
        height, width = crop(picture).shape
        wide += 0.85 < width / height < 1.2
    assert wide > 0.4 * len(digits.images)


def test_ones_with_a_long_flag_are_drawn_as_often_as_all_others():
    """A thin pen's 1 is wider than half its height only by its flag or its foot."""
    forms, random = drawings.pen_digits(), np.random.default_rng(3)
    assert {"1", "4", "7"} <= set(forms)
    drawn = [crop(drawings.pen_digit(random, 1, thin=True)) for _ in range(200)]
    assert sum(image.shape[1] > 0.5 * image.shape[0] for image in drawn) > 100


def test_the_forms_of_each_template_can_be_blended():
    for templates in (drawings.pen_letters(), drawings.pen_digits()):
        for forms in (forms for ways in templates.values() for forms in ways):
            assert len({tuple(map(len, form)) for form in forms}) == 1


def test_pen_drawn_digits_are_all_ten_and_no_two_alike():
    images, labels = examples.pen_drawn(300, np.random.default_rng(3))
    assert set(labels) == set(range(10))
    assert len({image.tobytes() for image in images}) == 300


def test_what_is_empty_or_as_narrow_as_a_1_is_drawn_again():
    empty, bar = np.zeros((60, 60), np.uint8), np.zeros((60, 60), np.uint8)
    bar[10:50, 28:33] = 255
    cross, corner = bar | bar.T, bar.copy()
    corner[45:50, 28:55] = 255
    pictures = iter([empty, bar, cross, bar, corner])
    drawn = examples.draw(lambda random, digits: next(pictures), 2, NONE, np.random.default_rng(0))
    np.testing.assert_array_equal(drawn, [normalise(cross).image, normalise(corner).image])
