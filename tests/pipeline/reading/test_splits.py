import numpy as np
import pytest

from pipeline.config import PipelineError
from pipeline.data.dataset import NAMES
from pipeline.reading.published import Published
from pipeline.reading.splits import split


def published(training=400, test=100, labels=None, groups=()):
    """Each image is unlike any other, and the classes are not equally frequent."""
    random = np.random.default_rng(0)
    size = training + test
    if labels is None:
        labels = random.choice(10, size, p=np.arange(5, 15) / 95)
    images = random.integers(0, 256, (size, 4, 4), np.uint8)
    names = [f"{label}/{place}.png" for place, label in enumerate(labels)]
    return Published(images, np.array(labels, np.uint8), test, names, groups)


@pytest.fixture
def data(configured):
    def sizes(validation, test, *overrides):
        sizes = (f"data.split.validation={validation}", f"data.split.test={test}")
        return configured(1, *sizes, *overrides).data

    return sizes


def parts(splits):
    return [getattr(splits, name) for name in NAMES]


@pytest.mark.parametrize("seed", [0, 1, 42])
@pytest.mark.parametrize("own_test", [100, 0])
def test_every_split_that_is_drawn_is_stratified(seed, own_test, data):
    given = published(500 - own_test, own_test)
    splits = split(given, data(40, 100 - own_test), seed)
    assert [len(part) for part in parts(splits)] == [360, 40, 100]
    share = np.bincount(given.labels[: 500 - own_test]) / (500 - own_test)
    for part in parts(splits)[1 : 2 if own_test else 3]:
        assert np.abs(np.bincount(part.labels, minlength=10) - share * len(part)).max() <= 1


@pytest.mark.parametrize(
    ("part", "size"),
    [*(("validation", size) for size in (-1, 0, 9, 391, 1_000_000)), ("test", -1), ("test", 491)],
)
def test_an_impossible_size_is_refused_by_name(part, size, data):
    given = published() if part == "validation" else published(500, 0)
    sizes = {"validation": 50, "test": 0} | {part: size}
    most = len(given.labels) - given.own_test - 10
    with pytest.raises(PipelineError, match=rf"data\.split\.{part} is {size}, .* 10 .* to {most} "):
        split(given, data(**sizes), seed=1)


@pytest.mark.parametrize(("own_test", "size"), [(100, 50), (0, 0)])
def test_there_is_one_test_set_neither_two_nor_none(own_test, size, data):
    with pytest.raises(PipelineError, match=r"data\.split\.test is .* test images of its own"):
        split(published(400, own_test), data(40, size), seed=1)


# Classes


@pytest.mark.parametrize(("count", "own_test"), [(1, 100), (2, 0)])
def test_a_class_with_fewer_images_than_splits_is_named(count, own_test, data):
    labels = np.arange(500) % 9
    labels[:count] = 9
    given = published(500 - own_test, own_test, labels)
    with pytest.raises(PipelineError, match=rf"few images of class 9: {count}, .*mnist\.yaml"):
        split(given, data(40, 100 - own_test), seed=1)


def test_a_class_that_is_in_none_of_the_validation_images_is_named(data):
    labels = np.arange(500) % 9
    labels[:4] = 9
    with pytest.raises(PipelineError, match=r"class 9: none is in the \w+ images .*data\.split"):
        split(published(500, 0, labels), data(20, 20), seed=1)


# Groups


def writers(count=20, classes=10, each=2):
    """Each writer wrote each class that often."""
    labels = np.tile(np.repeat(np.arange(classes), each), count)
    groups = np.repeat([f"writer {n}" for n in range(count)], classes * each)
    return published(len(labels), 0, labels, groups.tolist())


@pytest.mark.parametrize("seed", [1, 2])
def test_images_of_a_group_are_in_one_split(seed, data, caplog):
    caplog.set_level("INFO")
    given = writers()
    splits = split(given, data(60, 60), seed)
    of_part = [{given.groups[place] for place in part.index} for part in parts(splits)]
    assert [len(groups) for groups in of_part] == [14, 3, 3]
    assert len(set.union(*of_part)) == 20
    assert [len(part) for part in parts(splits)] == [280, 60, 60]
    assert "data.split.test: 60 images asked for, 60 held out, of 3 of 20 groups" in caplog.text


def test_the_seed_draws_the_groups(data):
    first, again, other = (split(writers(), data(60, 60), seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.test.index, again.test.index)
    assert first.test.index.tolist() != other.test.index.tolist()


def test_classes_stay_about_even_where_groups_are_not(data):
    """Half of the writers wrote the classes 0 to 4 more often, the others 5 to 9."""
    random = np.random.default_rng(3)
    rows = [
        (n, label)
        for n in range(60)
        for label in random.choice(10, random.integers(5, 30), p=_LEAN[n % 2])
    ]
    groups, labels = zip(*rows, strict=True)
    given = published(len(rows), 0, labels, [str(group) for group in groups])
    splits = split(given, data(len(rows) // 6, len(rows) // 6), 1)
    share = np.bincount(given.labels) / len(rows)
    for part in (splits.validation, splits.test):
        assert len(part) == pytest.approx(len(rows) / 6, rel=0.1)
        found = np.bincount(part.labels, minlength=10) / len(part)
        assert np.abs(found - share).max() < 0.05


_LEAN = [np.repeat([0.15, 0.05], 5), np.repeat([0.05, 0.15], 5)]


def test_a_single_group_cannot_be_split(data):
    with pytest.raises(PipelineError, match=r"all \d+ images are of one group, writer 0"):
        split(writers(1, each=20), data(40, 40), seed=1)


# Copies


def test_copies_of_held_out_images_are_not_trained_on_and_are_named(data, caplog):
    given = published()
    plain = split(given, data(40, 0), 1)
    tested, validated = int(plain.test.index[0]), int(plain.validation.index[0])
    first, second = (int(place) for place in plain.train.index[:2])
    given.images[first] = given.images[tested]
    given.images[second] = given.images[validated]
    splits = split(given, data(40, 0), 1)
    assert splits.train.index.tolist() == plain.train.index[2:].tolist()
    assert len(splits.validation) == 40
    assert "2 images are copies of images that are held out, and are left out" in caplog.text
    assert f"{given.names[first]} = {given.names[tested]}" in caplog.text


def test_a_validation_image_that_is_a_test_image_is_left_out_and_its_other_class_is_told(
    data, caplog
):
    given = published()
    validated = int(split(given, data(40, 0), 1).validation.index[3])
    given.images[validated] = given.images[450]
    given.labels[450] = (given.labels[validated] + 1) % 10
    splits = split(given, data(40, 0), 1)
    assert validated not in splits.validation.index
    classes = given.labels[validated], given.labels[450]
    assert "(class {} and {})".format(*classes) in caplog.text


def test_images_without_files_are_named_by_their_place(data, caplog):
    given = published()._replace(names=())
    given.images[0] = given.images[450]
    split(given, data(40, 0), 1)
    assert "image 0 = image 450" in caplog.text


def test_groups_are_not_kept_apart_from_a_test_set_of_its_own(data):
    described = data(40, 0)
    described.split.group = "w(.)"
    with pytest.raises(PipelineError, match=r"data\.split\.group .*set it to null"):
        split(published(400, 100), described, seed=1)
