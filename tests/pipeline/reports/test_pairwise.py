import numpy as np
import pytest
from support.candidates import LABELS, TEST, candidate, result

from pipeline.data.dataset import Split
from pipeline.reports import pairwise, theme


def other_images(number):
    return Split(np.full_like(TEST.images, number), LABELS, TEST.index)


def compare_pairs(*candidates):
    return pairwise.compare_pairs(pairwise.of_experiments(candidates))


def test_the_best_on_validation_comes_first_of_equals_the_surer():
    (group,) = pairwise.of_experiments(
        [
            candidate(name="c", val=0.8, loss=0.1),
            candidate(name="b", loss=0.4),
            candidate(name="a", loss=0.2),
        ]
    )
    assert [(c.label, c.name) for c in group] == [("A", "a"), ("B", "b"), ("C", "c")]


def test_what_was_tested_on_other_images_is_another_group():
    relabelled = Split(TEST.images, (LABELS + 1) % 10, TEST.index)
    copied = Split(TEST.images.copy(), LABELS.copy(), TEST.index + 5)
    groups = pairwise.of_experiments(
        [
            candidate(name="first"),
            candidate(name="pixels", val=0.95, test=other_images(1)),
            candidate(name="labels", val=0.8, test=relabelled),
            candidate(name="same", val=0.7, test=copied),
        ]
    )
    assert [[c.name for c in group] for group in groups] == [
        ["pixels"],
        ["first", "same"],
        ["labels"],
    ]
    assert [c.label for group in groups for c in group] == ["A", "B", "C", "D"]
    assert len(pairwise.compare_pairs(groups)) == 1


def test_groups_are_told_apart_in_few_words():
    def label(*candidates):
        return pairwise.labels([[candidate] for candidate in candidates])

    assert label(candidate()) == ["mnist"]
    assert label(candidate(), candidate(data="digits", seed=2), candidate(data="digits")) == [
        "mnist",
        "digits, seed 2",
        "digits, seed 42",
    ]
    assert label(candidate(split="0123456789abcdef"), candidate(split="fedcba9876543210")) == [
        "mnist, 0123456789ab",
        "mnist, fedcba987654",
    ]


def test_the_more_comparisons_the_less_one_of_them_says():
    best, worse = candidate(range(3), val=0.99), candidate(range(11))
    (alone,) = compare_pairs(best, worse)
    assert alone.significant
    among = compare_pairs(best, worse, *(candidate(range(4), val=0.5) for _ in range(9)))
    assert among[0].found == alone.found
    assert not among[0].significant


@pytest.mark.parametrize(
    ("best", "other", "verdict"),
    [
        (
            candidate([0], val=0.95),
            candidate(range(1, 31)),
            (
                "A reads better than B",
                "A misreads 1 image that B reads right, B misreads 30 images that A reads right: "
                "with p < 0.0001 (Holm) the difference is unlikely to be chance",
            ),
        ),
        (
            candidate([0, 1], val=0.95),
            candidate([1, 2, 3]),
            (
                "No significant difference between A and B",
                "A misreads 1 image that B reads right, B misreads 2 images that A reads right: "
                "with p = 1.00 (Holm) that could well be chance",
            ),
        ),
        (
            candidate([5], val=0.95),
            candidate([5]),
            (
                "A and B give the same answer to every test image",
                "Though they are different models",
            ),
        ),
        (
            candidate([5], sha="ab"),
            candidate([5], sha="ab"),
            ("A and B give the same answer to every test image", "They are the same file"),
        ),
    ],
    ids=["clear", "small", "equal answers", "same file"],
)
def test_the_verdict_says_what_was_found_and_why(best, other, verdict):
    (test,) = compare_pairs(best, other)
    assert pairwise.verdict(test) == verdict


@pytest.mark.parametrize(
    ("best", "other", "finding"),
    [
        (range(30), candidate(), "B reads better than A, although worse on validation images"),
        ([5], candidate([5], shift=2), "A and B misread the same test images"),
    ],
)
def test_the_verdict_admits_what_the_choice_does_not_show(best, other, finding):
    (test,) = compare_pairs(candidate(best, val=0.95), other)
    assert pairwise.verdict(test)[0] == finding


def test_the_same_file_under_two_names_is_noticed():
    (group,) = pairwise.of_experiments(
        [candidate(name="a", sha="x"), candidate(name="b"), candidate(name="c", sha="x")]
    )
    assert [[c.label for c in same] for same in pairwise.identical(group)] == [["A", "C"]]


def test_other_validation_images_of_the_same_test_images_are_noticed():
    assert pairwise.same_validation([candidate(), candidate()])
    assert not pairwise.same_validation([candidate(), candidate(split="cd")])


def test_disputed_images_come_with_the_biggest_difference_first():
    one, other = candidate([50]), candidate([10, 20, 30, 50])
    one.result.probabilities[20, 0] = 0.99
    other.result.probabilities[30, 0] = 0.0
    assert pairwise.disputed(one, other).tolist() == [20, 30, 10]
    assert pairwise.disputed(other, one).tolist() == []


def test_runs_keep_their_number_and_colour_the_best_first():
    runs = {1: result(val=0.8), 4: result(val=0.9, loss=0.2), 7: result(val=0.9, loss=0.1)}
    found = pairwise.of_runs(runs)
    assert [(c.label, c.place, c.colour) for c in found] == [
        *(("run 7", 6, 7), ("run 4", 3, 4), ("run 1", 0, 1)),
    ]
    (first, second) = pairwise.compare_pairs([found])
    assert (first.best.label, first.other.label) == ("run 7", "run 4")
    assert (second.best.label, second.other.label) == ("run 7", "run 1")


@pytest.mark.parametrize(
    ("runs", "colours"),
    [
        ([3, 1, 2], [3, 1, 2]),
        ([3, 3, 1, 3, 1], [3, 4, 1, 5, 6]),
        ([2] * 12, [*range(2, 13), 1]),
        ([1, 3] + [3] * 10, [1, 3, *range(4, 13), 2]),
    ],
)
def test_the_best_experiment_of_a_run_has_its_colour_others_that_of_no_run(runs, colours):
    (group,) = pairwise.of_experiments(
        candidate(name=str(place), val=1 - place / 100, run=run) for place, run in enumerate(runs)
    )
    assert [c.colour for c in group] == colours
    assert len({theme.css_colour(colour) for colour in colours}) == len(runs)
