"""How much of the users' feedback joins the data set, and which part is held out."""

import dataclasses
import hashlib

import numpy as np
import pytest
from support.feedback_entries import noise

from pipeline.config import PipelineError
from pipeline.config.data_schema import Feedback
from pipeline.data import dataset
from pipeline.data.dataset import Split, Splits
from pipeline.user_feedback import export_file
from pipeline.user_feedback.export_file import Export, join

RULES = Feedback(sha256=None, held_out=0.25, largest_share=0.5, least=20)


def part(numbers):
    numbers = np.array(numbers)
    images = np.stack([noise(number) for number in numbers])
    return Split(images, (numbers % 10).astype(np.uint8), numbers.astype(np.int32))


def export(numbers):
    return Export(part(numbers).images, part(numbers).labels)


@pytest.fixture(scope="module")
def published():
    return part(range(500))


@pytest.fixture(scope="module")
def splits():
    return Splits(part(range(300)), part(range(300, 400)), part(range(400, 500)))


def test_feedback_joins_the_training_images_and_no_others(splits, published):
    mixed, counts = join(splits, published.images, export(range(1000, 1100)), RULES)
    for name in ("validation", "test"):
        assert getattr(mixed, name) is getattr(splits, name)
    np.testing.assert_array_equal(mixed.train.images[:300], splits.train.images)
    assert counts["train"] == len(mixed.train) - 300
    assert counts["held_out"] == len(mixed.feedback)
    assert counts["train"] + counts["held_out"] == counts["exported"] == 100
    assert counts["train_share"] == pytest.approx(counts["train"] / len(mixed.train), abs=1e-6)
    assert sum(counts["train_digits"].values()) == counts["train"]
    assert sum(counts["held_out_digits"].values()) == counts["held_out"]


def test_no_image_is_in_two_parts_and_each_keeps_its_digit(splits, published):
    exported = export(range(1000, 1100))
    mixed, _ = join(splits, published.images, exported, RULES)
    added = mixed.train.index[300:], mixed.feedback.index
    assert sorted(np.concatenate(added)) == list(range(500, 600))
    for of_part in (mixed.feedback, Split(*(a[300:] for a in vars(mixed.train).values()))):
        np.testing.assert_array_equal(of_part.images, exported.images[of_part.index - 500])
        np.testing.assert_array_equal(of_part.labels, exported.labels[of_part.index - 500])


@pytest.mark.parametrize("there", [range(10), range(300, 310), range(400, 410)])
def test_published_images_that_come_back_are_left_out(splits, published, there):
    """Those of the test set above all: the service is tried with them."""
    exported = export([*there, *range(1000, 1100)])
    mixed, counts = join(splits, published.images, exported, RULES)
    assert counts["published"] == 10
    known = {image.tobytes() for image in published.images}
    new = [*mixed.train.images[300:], *mixed.feedback.images]
    assert len(new) == 100
    assert not known & {image.tobytes() for image in new}


def held_out(splits, published, numbers):
    mixed, _ = join(splits, published.images, export(numbers), RULES)
    return {image.tobytes() for image in mixed.feedback.images}


def test_what_is_held_out_stays_so_when_feedback_grows(splits, published):
    few = held_out(splits, published, range(1000, 1100))
    many = held_out(splits, published, range(900, 1300))
    assert few < many
    assert {noise(n).tobytes() for n in range(1000, 1100)} & many == few
    assert len(many) / 400 == pytest.approx(RULES.held_out, abs=0.08)


def test_each_digit_has_at_most_its_share_whatever_the_others_have(splits, published):
    """A flood of one digit takes no other's place, and does not outweigh that digit."""
    rules = dataclasses.replace(RULES, largest_share=0.25)
    flood = [1000 + 10 * n + 7 for n in range(200)]
    few = [5000 + 10 * n + digit for n in range(5) for digit in range(10) if digit != 7]
    mixed, counts = join(splits, published.images, export(flood + few), rules)
    assert counts["train_digits"]["7"] == 10  # 30 published: a quarter of 40
    assert (mixed.train.labels == 7).sum() == 40
    assert counts["above_share"] == 200 + 45 - counts["train"] - counts["held_out"]
    others = [count for digit, count in counts["train_digits"].items() if digit != "7"]
    assert sum(others) + counts["held_out_digits"]["7"] > 36
    assert counts["train"] - 10 + counts["held_out"] - counts["held_out_digits"]["7"] == 45


def test_over_the_cap_the_images_of_the_highest_draws_stay(splits, published):
    """So that the choice stays as feedback grows; a draw comes from the image's hash alone."""

    def draw(image):
        return int.from_bytes(hashlib.sha256(image.tobytes()).digest()[:6]) / 2**48

    sevens = export(range(1007, 3000, 10))
    offered = sorted((image for image in sevens.images if draw(image) >= 0.25), key=draw)
    mixed, counts = join(splits, published.images, sevens, RULES)
    assert counts["train"] == 30 < len(offered)  # as many as there are published sevens
    added = {image.tobytes() for image in mixed.train.images[300:]}
    assert added == {image.tobytes() for image in offered[-30:]}


def test_too_little_is_refused_with_the_count_and_what_to_do(splits, published):
    message = r"19 images of feedback are new .* wants 20 .*collect more.*data=mnist"
    with pytest.raises(PipelineError, match=message):
        join(splits, published.images, export([*range(30), *range(1000, 1019)]), RULES)


def test_neither_side_may_be_empty(splits, published):
    rules = dataclasses.replace(RULES, held_out=1e-9)
    with pytest.raises(PipelineError, match=r"of 30 images of feedback 0 are held out and 30"):
        join(splits, published.images, export(range(1000, 1030)), rules)


def test_the_file_is_the_same_bytes_for_the_same_images(tmp_path):
    exported = export(range(30))
    for name in ("a", "b"):
        export_file.save(exported, tmp_path / f"{name}.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    for kept, given in zip(export_file.load(tmp_path / "a.npz"), exported, strict=True):
        np.testing.assert_array_equal(kept, given)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {"images", "labels"}, "nothing of who gave it"


def test_a_missing_file_names_the_stage_that_copies_it(tmp_path):
    with pytest.raises(PipelineError, match=r"pipeline\.fetch data=mnist_feedback"):
        export_file.load(tmp_path / "feedback.npz")


def test_the_held_out_part_is_saved_where_there_is_one(tmp_path, splits, published):
    mixed, _ = join(splits, published.images, export(range(1000, 1100)), RULES)
    dataset.save(splits, tmp_path / "mnist.npz")
    dataset.save(mixed, tmp_path / "mixed.npz")
    assert dataset.load_feedback(tmp_path / "mnist.npz") is None
    kept = dataset.load_feedback(tmp_path / "mixed.npz")
    for found, given in zip(vars(kept).values(), vars(mixed.feedback).values(), strict=True):
        np.testing.assert_array_equal(found, given)


def test_the_rules_are_those_of_the_configuration(configured):
    assert export_file.rules() == configured(1, "data=mnist_feedback").data.feedback
