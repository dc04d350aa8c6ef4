import numpy as np
import pytest

from pipeline.data.dataset import Split
from pipeline.evaluation import label_errors
from pipeline.evaluation.label_errors import ERRORS


def split(labels):
    return Split(np.empty((len(labels), 0, 0), np.uint8), labels, np.arange(len(labels)))


@pytest.fixture
def labels():
    """Labels that are MNIST's where they are wrong."""
    labels = np.zeros(10_000, np.uint8)
    labels[list(ERRORS)] = [published for published, _ in ERRORS.values()]
    return labels


def test_who_sees_what_people_saw_gains_from_corrected_labels(labels):
    answers = labels.copy()
    answers[:20] = 1  # misread
    for place, (published, seen) in ERRORS.items():
        answers[place] = published + 1 if seen is None else seen
    found = label_errors.metrics(np.eye(10, dtype=np.float32)[answers], split(labels))
    assert found == {
        "label_errors": 15,
        "test_accuracy_without_label_errors": pytest.approx(1 - 20 / 9985),
        "test_accuracy_corrected_labels": pytest.approx(1 - 20 / 9995),
    }


def test_other_data_have_other_errors(labels):
    answers = np.eye(10, dtype=np.float32)[labels]
    labels[947] = 9
    assert label_errors.metrics(answers, split(labels)) == {}
    assert label_errors.metrics(answers[:100], split(labels[:100])) == {}
