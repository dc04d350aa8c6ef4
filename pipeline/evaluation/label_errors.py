"""Published label errors of MNIST's test set, and accuracy without them.

Northcutt, Athalye and Mueller, "Pervasive Label Errors in Test Sets Destabilize Machine Learning
Benchmarks", NeurIPS 2021. From `mturk/mnist_mturk.json` of github.com/cleanlab/label-errors: the
images whose label fewer than three of the five people who looked agreed with.
"""

from typing import Any

import numpy as np

from pipeline.data.dataset import Split
from pipeline.evaluation.metrics import Probabilities, accuracy

# Position in the test files: the published label, and the digit that at least three of the five
# people saw, None where they saw no digit or did not agree.
ERRORS: dict[int, tuple[int, int | None]] = {
    947: (8, 9),
    1621: (0, 6),
    1901: (9, 4),
    2130: (4, None),
    2462: (2, 0),
    2597: (5, 3),
    2654: (6, None),
    3520: (6, None),
    3558: (5, 0),
    5937: (5, 3),
    6651: (0, 6),
    6783: (1, 6),
    8527: (4, None),
    9679: (6, None),
    9729: (5, 6),
}
_TEST_IMAGES = 10_000


def metrics(probabilities: Probabilities, test: Split) -> dict[str, Any]:
    """Return the accuracy without these images, and with corrected labels; {} for other data.

    Images without a corrected label are left out of both.
    """
    wrong = np.array(list(ERRORS))
    published = [label for label, _ in ERRORS.values()]
    if len(test) != _TEST_IMAGES or test.labels[wrong].tolist() != published:
        return {}
    corrected = test.labels.astype(np.int16)
    corrected[wrong] = [-1 if digit is None else digit for _, digit in ERRORS.values()]
    clean, labelled = np.delete(np.arange(len(test)), wrong), corrected >= 0
    labels = corrected[labelled].astype(np.uint8)
    return {
        "label_errors": len(ERRORS),
        "test_accuracy_without_label_errors": accuracy(probabilities[clean], test.labels[clean]),
        "test_accuracy_corrected_labels": accuracy(probabilities[labelled], labels),
    }
