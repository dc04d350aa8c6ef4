"""What the drift job sees of MNIST's test digits, as they are and changed; docs/MONITORING.md."""

from functools import partial

import numpy as np
import pytest

from bench import drift
from monitoring.drift.drift_tests import LATEST, NEEDED
from pipeline.config import paths
from pipeline.data import as_served
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


@pytest.fixture(scope="module")
def plain(predictor, digits):
    """What is predicted of the digits as they are."""
    return drift.predicted(predictor, digits.images)


@pytest.mark.parametrize("size", [NEEDED, 300, LATEST])
def test_digits_as_they_are_do_not_drift(plain, expected, size):
    chance = np.random.default_rng(1)
    draw = partial(drift.drawn, plain, size, chance)
    assert drift.detected(draw, expected, DRAWS) <= 0.01


@pytest.mark.parametrize("name", drift.CHANGES)
def test_what_is_changed_drifts(predictor, expected, digits, name):
    chance = np.random.default_rng(1)
    some = chance.permutation(len(digits))[:1_000]
    few = Split(digits.images[some], digits.labels[some], digits.index[some])
    images = drift.CHANGES[name](few, chance)
    normalised, found = as_served.normalised(images)
    changed, sent = (
        drift.detected(
            partial(drift.drawn, drift.predicted(predictor, each), 2 * NEEDED, chance), expected, 50
        )
        for each in (images, normalised[found])
    )
    assert changed > 0.9
    if name == "inverted":  # which the service undoes
        assert sent < 0.1
    else:
        assert sent > 0.9
