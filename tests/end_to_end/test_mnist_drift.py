"""What the drift job sees of MNIST's test digits, as they are and changed; docs/MONITORING.md."""

import numpy as np
import pytest

from bench import drift
from monitoring.drift.drift_tests import LATEST, NEEDED
from pipeline.config import paths
from pipeline.data.dataset import Split
from serve.models import drift_reference
from serve.models.predictor import Predictor

pytestmark = pytest.mark.slow
DRAWS = 1_000  # windows, of which one in a hundred at most is a false alarm


@pytest.fixture(scope="module")
def predictor(champion):
    return Predictor(champion.folder / paths.CHAMPION)


@pytest.fixture(scope="module")
def expected(champion):
    """The reference of the champion."""
    path = champion.folder / paths.CHAMPION / drift_reference.FILE
    assert path.stat().st_size < 200_000
    return drift_reference.read(path.read_bytes())


@pytest.fixture(scope="module")
def digits(champion):
    return drift.loaded(champion.folder / paths.processed("mnist"), "test")


@pytest.mark.parametrize("size", [NEEDED, 300, LATEST])
def test_digits_as_they_are_do_not_drift(predictor, expected, digits, size):
    plain = drift.answered(predictor, digits.images)
    chance = np.random.default_rng(1)
    assert drift.share_seen(plain, size, expected, DRAWS, chance) <= 0.01


@pytest.mark.parametrize("name", drift.CHANGES)
def test_what_is_changed_drifts(predictor, expected, digits, name):
    chance = np.random.default_rng(1)
    some = chance.permutation(len(digits))[:1_000]
    few = Split(digits.images[some], digits.labels[some], digits.index[some])
    images = drift.CHANGES[name](few, chance)
    changed = drift.answered(predictor, images)
    assert drift.share_seen(changed, 2 * NEEDED, expected, 50, chance) > 0.9
    sent = drift.answered(predictor, drift.sent(images))
    seen = drift.share_seen(sent, 2 * NEEDED, expected, 50, chance)
    if name == "inverted":  # which the service undoes
        assert seen < 0.1
    else:
        assert seen > 0.9
