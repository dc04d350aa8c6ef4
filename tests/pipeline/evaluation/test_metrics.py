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
    assert metrics.validation_metrics(probabilities, labels) == {
        "val_accuracy": sklearn.metrics.accuracy_score(labels, probabilities.argmax(axis=1)),
        "val_loss": pytest.approx(sklearn.metrics.log_loss(labels, in_double), rel=1e-5),
    }


def test_confusion_recall_and_precision_are_those_of_scikit_learn(answers):
    probabilities, labels = answers
    predicted = probabilities.argmax(axis=1)
    confusion = metrics.confusion_matrix(labels, predicted, 10)
    np.testing.assert_array_equal(confusion, sklearn.metrics.confusion_matrix(labels, predicted))
    np.testing.assert_allclose(
        metrics.recall(confusion), sklearn.metrics.recall_score(labels, predicted, average=None)
    )
    np.testing.assert_allclose(
        metrics.precision(confusion),
        sklearn.metrics.precision_score(labels, predicted, average=None),
    )


def test_a_class_that_is_absent_or_never_predicted_counts_as_zero():
    confusion = metrics.confusion_matrix(np.array([0, 1], np.uint8), np.array([0, 2], np.uint8), 10)
    assert confusion.shape == (10, 10)
    assert metrics.recall(confusion).tolist() == [1, *[0] * 9]
    assert metrics.precision(confusion).tolist() == [1, *[0] * 9]


def test_loss_of_an_impossible_truth_is_large_and_finite():
    certain = np.array([[1, 0], [1, 0]], np.float32)
    assert 40 < metrics.log_loss(certain, np.array([0, 1], np.uint8)) < 50


def made_up(confidence, right):
    """Two-class probabilities of that confidence, `right` of them for the true class."""
    probabilities = np.tile(np.array([confidence, 1 - confidence], np.float32), (len(right), 1))
    return probabilities, np.where(right, 0, 1).astype(np.uint8)


@pytest.mark.parametrize(("confidence", "every", "error"), [(0.5, 2, 0), (0.9, 2, 0.4)])
def test_calibration_error_is_the_excess_of_confidence(confidence, every, error):
    probabilities, labels = made_up(confidence, np.arange(1000) % every == 0)
    found = metrics.calibration_error(metrics.reliability(probabilities, labels))
    assert found == pytest.approx(error, abs=1e-6)


def test_bins_hold_every_image_once(answers):
    bins = metrics.reliability(*answers)
    assert bins.images.shape == (15,)
    assert bins.images.sum() == 500
    filled = bins.images > 0
    edges = np.arange(16) / 15
    assert (bins.confidence[filled] > edges[:-1][filled]).all()
    assert (bins.confidence[filled] <= edges[1:][filled]).all()
    assert (bins.images @ bins.accuracy) / 500 == pytest.approx(metrics.accuracy(*answers))


@pytest.mark.parametrize(
    ("confidence", "place"),
    [(0, 0), (0.5, 1), (0.5000001, 2), (0.75, 2), (0.7500001, 3), (1, 3), (1.0000001, 3)],
)
def test_a_bin_holds_its_upper_edge_and_not_its_lower(confidence, place):
    probabilities = np.array([[confidence, 0]], np.float32)
    bins = metrics.reliability(probabilities, np.array([0], np.uint8), bins=4)
    assert bins.images.tolist() == [int(number == place) for number in range(4)]
    assert bins.confidence[place] == pytest.approx(confidence)
    assert bins.accuracy.tolist() == bins.images.tolist()


def metrics_of(val_accuracy, val_loss=0.1, test_accuracy=0.9):
    return {"val_accuracy": val_accuracy, "val_loss": val_loss, "test_accuracy": test_accuracy}


@pytest.mark.parametrize(
    ("runs", "best"),
    [
        ({1: metrics_of(0.98), 2: metrics_of(0.99), 3: metrics_of(0.97)}, 2),
        ({1: metrics_of(0.98, 0.9, 0.9), 2: metrics_of(0.97, 0.1, 0.99)}, 1),
        ({1: metrics_of(0.98, 0.2), 2: metrics_of(0.98, 0.1)}, 2),
        ({3: metrics_of(0.98), 1: metrics_of(0.98), 2: metrics_of(0.98)}, 1),
    ],
    ids=["validation", "not test", "then loss", "then number"],
)
def test_the_best_run_is_chosen_by_validation(runs, best):
    assert min(runs, key=lambda run: metrics.rank(runs[run], run)) == best


def test_auroc_is_that_of_scikit_learn_ties_included():
    random = np.random.default_rng(0)
    positive, negative = (random.integers(a, 9, 70).astype(np.float32) for a in (2, 0))
    found = metrics.auroc(positive, negative[:50])
    truth = np.repeat([1, 0], [70, 50])
    scores = np.concatenate([positive, negative[:50]])
    assert found == pytest.approx(sklearn.metrics.roc_auc_score(truth, scores))
