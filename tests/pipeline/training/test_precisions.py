import hashlib

import numpy as np
import pytest

from pipeline.data.dataset import Split
from pipeline.training import precisions
from pipeline.training.precisions import ACCURACY_LOSS, ECE_LOSS


def test_each_file_is_described_by_its_own_answers(trained, litert, digit_file):
    validation = trained.validation
    described = precisions.describe({"float32": litert, "int8": digit_file(3)}, validation)
    first, second = described["float32"], described["int8"]
    assert first["file"] == "model.tflite"
    assert second["file"] == "model.int8.tflite"
    assert first["sha256"] == hashlib.sha256(litert).hexdigest()
    assert first["size_bytes"] == len(litert)
    assert first["metrics"].keys() == {"val_accuracy", "val_loss", "val_ece"}
    assert first["metrics"]["val_accuracy"] == 0.9
    assert second["metrics"]["val_accuracy"] == 0.1
    assert first["temperature"] < second["temperature"]
    assert (first.get("holds"), second["holds"]) == (None, False)


def test_the_same_file_holds(litert):
    validation = Split(
        np.zeros((20, 28, 28), np.uint8), np.zeros(20, np.uint8), np.arange(20, dtype=np.int32)
    )
    described = precisions.describe({"float32": litert, "int8": litert}, validation)
    assert described["int8"]["holds"] is True


@pytest.mark.parametrize(
    ("accuracy", "ece", "expected"),
    [
        (0.993 - ACCURACY_LOSS, 0.003 + ECE_LOSS, True),
        (0.999, 0.0, True),
        (0.993 - ACCURACY_LOSS - 1e-4, 0.003, False),
        (0.993, 0.003 + ECE_LOSS + 1e-4, False),
    ],
)
def test_int8_holds_within_the_limits(accuracy, ece, expected):
    float32 = {"val_accuracy": 0.993, "val_ece": 0.003}
    assert precisions.holds({"val_accuracy": accuracy, "val_ece": ece}, float32) is expected
