import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics

from pipeline.evaluation import metrics as statistics


@pytest.fixture(params=[0, 1])
def answers(request):
    """Random probabilities of 500 images, right about two times in three, and their digits."""
    random = np.random.default_rng(request.param)
    labels = random.integers(0, 10, 500).astype(np.uint8)
    logits = random.normal(size=(500, 10)) + 2.5 * np.eye(10)[labels]
    exponentials = np.exp(logits)
    return (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32), labels


def test_accuracy_and_loss_are_those_of_scikit_learn(answers):
    probabilities, labels = answers
    in_double = probabilities.astype(np.float64)
    in_double /= in_double.sum(axis=1, keepdims=True)
    assert statistics.accuracy(probabilities, labels) == metrics.accuracy_score(
        labels, probabilities.argmax(axis=1)
    )
    assert statistics.log_loss(probabilities, labels) == pytest.approx(
        metrics.log_loss(labels, in_double), rel=1e-5
    )


def test_confusion_recall_and_precision_are_those_of_scikit_learn(answers):
    probabilities, labels = answers
    predicted = probabilities.argmax(axis=1)
    confusion = statistics.confusion_matrix(labels, predicted)
    np.testing.assert_array_equal(confusion, metrics.confusion_matrix(labels, predicted))
    np.testing.assert_allclose(
        statistics.recall(confusion), metrics.recall_score(labels, predicted, average=None)
    )
    np.testing.assert_allclose(
        statistics.precision(confusion), metrics.precision_score(labels, predicted, average=None)
    )


def test_a_class_that_is_absent_or_never_predicted_counts_as_zero():
    confusion = statistics.confusion_matrix(np.array([0, 0], np.uint8), np.array([1, 1], np.uint8))
    assert confusion.shape == (10, 10)
    assert statistics.recall(confusion).tolist() == [0] * 10
    assert statistics.precision(confusion).tolist() == [0] * 10


def test_loss_of_an_impossible_truth_is_large_and_finite():
    certain = np.array([[1, 0], [1, 0]], np.float32)
    assert 40 < statistics.log_loss(certain, np.array([0, 1], np.uint8)) < 50


def made_up(confidence, right):
    """Two-class probabilities of that confidence, `right` of them for the true class."""
    probabilities = np.tile(np.array([confidence, 1 - confidence], np.float32), (len(right), 1))
    return probabilities, np.where(right, 0, 1).astype(np.uint8)


def test_the_calibrated_have_no_calibration_error():
    probabilities, labels = made_up(0.75, np.arange(1000) % 4 != 0)
    assert statistics.calibration_error(statistics.reliability(probabilities, labels)) < 1e-6


def test_the_overconfident_have_a_calibration_error_of_their_excess():
    probabilities, labels = made_up(0.9, np.arange(1000) % 2 == 0)
    error = statistics.calibration_error(statistics.reliability(probabilities, labels))
    assert error == pytest.approx(0.4, abs=1e-6)


def test_bins_hold_every_image_once(answers):
    bins = statistics.reliability(*answers)
    assert bins.images.shape == (statistics.BINS,)
    assert bins.images.sum() == 500
    filled = bins.images > 0
    edges = np.arange(statistics.BINS + 1) / statistics.BINS
    assert (bins.confidence[filled] > edges[:-1][filled]).all()
    assert (bins.confidence[filled] <= edges[1:][filled]).all()
    assert (bins.images @ bins.accuracy) / 500 == pytest.approx(statistics.accuracy(*answers))


def test_full_confidence_falls_into_the_last_bin():
    assert statistics.reliability(*made_up(1.0, np.array([True]))).images.tolist() == [0] * 14 + [1]


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (9912, 10_000), (360, 360)])
def test_wilson_follows_its_formula(successes, trials):
    z, share = 1.959963984540054, successes / trials
    centre = (share + z**2 / 2 / trials) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * np.sqrt(share * (1 - share) / trials + (z / 2 / trials) ** 2)
    assert statistics.wilson(successes, trials) == pytest.approx((centre - half, centre + half))


def test_mcnemar_is_symmetrical(answers):
    random = np.random.default_rng(3)
    first, second = random.random(400) < 0.95, random.random(400) < 0.9
    there, back = statistics.mcnemar(first, second), statistics.mcnemar(second, first)
    assert there.p == back.p
    assert (there.only_first, there.only_second) == (back.only_second, back.only_first)
    assert there.p == binomtest(there.only_first, there.only_first + there.only_second).pvalue


def test_mcnemar_sees_no_difference_between_equals():
    right = np.arange(50) % 7 != 0
    assert statistics.mcnemar(right, right) == (0, 0, 1.0)


def test_mcnemar_knows_what_chance_does_not_do():
    first, second = np.ones(1000, bool), np.arange(1000) >= 20
    assert statistics.mcnemar(first, second) == (20, 0, pytest.approx(2 * 0.5**20))
