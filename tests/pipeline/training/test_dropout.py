import numpy as np
import pytest


@pytest.mark.parametrize("rate", [0.25, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(tensorflow, rate):
    from pipeline.training.dropout import Dropout

    dropout = Dropout(rate)
    ones = np.ones((64, 1001), np.float32)
    first, second = (np.asarray(dropout(ones, training=True)) for _ in range(2))
    assert np.mean(first == 0) == pytest.approx(rate, abs=0.01)
    assert first.mean() == pytest.approx(1, abs=0.02)
    assert set(np.unique(first)) == {0, np.float32(1 / (1 - rate))}
    assert not np.array_equal(first, second)
    assert np.array_equal(dropout(ones, training=False), ones)
