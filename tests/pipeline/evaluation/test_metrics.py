import numpy as np
import pytest
import sklearn.metrics

from pipeline.evaluation import metrics


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
    assert metrics.accuracy(probabilities, labels) == sklearn.metrics.accuracy_score(
        labels, probabilities.argmax(axis=1)
    )
    assert metrics.log_loss(probabilities, labels) == pytest.approx(
        sklearn.metrics.log_loss(labels, in_double), rel=1e-5
    )


def test_confusion_recall_and_precision_are_those_of_scikit_learn(answers):
    probabilities, labels = answers
    predicted = probabilities.argmax(axis=1)
    confusion = metrics.confusion_matrix(labels, predicted)
    np.testing.assert_array_equal(confusion, sklearn.metrics.confusion_matrix(labels, predicted))
    np.testing.assert_allclose(
        metrics.recall(confusion), sklearn.metrics.recall_score(labels, predicted, average=None)
    )
    np.testing.assert_allclose(
        metrics.precision(confusion),
        sklearn.metrics.precision_score(labels, predicted, average=None),
    )


def test_a_class_that_is_absent_or_never_predicted_counts_as_zero():
    confusion = metrics.confusion_matrix(np.array([0, 0], np.uint8), np.array([1, 1], np.uint8))
    assert confusion.shape == (10, 10)
    assert metrics.recall(confusion).tolist() == [0] * 10
    assert metrics.precision(confusion).tolist() == [0] * 10


def test_loss_of_an_impossible_truth_is_large_and_finite():
    certain = np.array([[1, 0], [1, 0]], np.float32)
    assert 40 < metrics.log_loss(certain, np.array([0, 1], np.uint8)) < 50


def made_up(confidence, right):
    """Two-class probabilities of that confidence, `right` of them for the true class."""
    probabilities = np.tile(np.array([confidence, 1 - confidence], np.float32), (len(right), 1))
    return probabilities, np.where(right, 0, 1).astype(np.uint8)


def test_the_calibrated_have_no_calibration_error():
    probabilities, labels = made_up(0.75, np.arange(1000) % 4 != 0)
    assert metrics.calibration_error(metrics.reliability(probabilities, labels)) < 1e-6


def test_the_overconfident_have_a_calibration_error_of_their_excess():
    probabilities, labels = made_up(0.9, np.arange(1000) % 2 == 0)
    error = metrics.calibration_error(metrics.reliability(probabilities, labels))
    assert error == pytest.approx(0.4, abs=1e-6)


def test_bins_hold_every_image_once(answers):
    bins = metrics.reliability(*answers)
    assert bins.images.shape == (metrics.BINS,)
    assert bins.images.sum() == 500
    filled = bins.images > 0
    edges = np.arange(metrics.BINS + 1) / metrics.BINS
    assert (bins.confidence[filled] > edges[:-1][filled]).all()
    assert (bins.confidence[filled] <= edges[1:][filled]).all()
    assert (bins.images @ bins.accuracy) / 500 == pytest.approx(metrics.accuracy(*answers))


def test_full_confidence_falls_into_the_last_bin():
    assert metrics.reliability(*made_up(1.0, np.array([True]))).images.tolist() == [0] * 14 + [1]
