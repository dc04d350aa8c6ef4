"""Data drift tests on samples of known distributions."""

import numpy as np
import pytest
from scipy.stats import chi2, ks_2samp

from monitoring.drift.drift_tests import (
    FALSE_ALARMS,
    LARGE_PSI,
    NEEDED,
    check,
    decile_counts,
    psi,
    psi_limit,
)
from pipeline.evaluation.significance import holm
from serve.models.drift_reference import FEATURES, Reference


@pytest.fixture
def chance():
    return np.random.default_rng(0)


def sample(chance, n, sharpness=0.3, **moved):
    """Made-up answers; `moved`: features by how many standard deviations."""
    features = chance.normal(0, 1, (n, len(FEATURES)))
    for name, by in moved.items():
        features[:, FEATURES.index(name)] += by
    return Reference(chance.dirichlet([sharpness] * 10, n), features)


def test_two_samples_of_one_law_do_not_drift(chance):
    reference = sample(chance, 2_500)
    alarms = [check(sample(chance, NEEDED), reference).drifted for _ in range(100)]
    assert sum(map(bool, alarms)) <= 1


def test_other_outputs_drift(chance):
    found = check(sample(chance, 500, sharpness=1), sample(chance, 2_500))
    assert any(name.startswith("softmax_") for name in found.drifted)
    assert found.psi["confidence"].drift
    assert not set(FEATURES) & set(found.drifted)


@pytest.mark.parametrize("feature", FEATURES)
def test_a_feature_that_moves_is_named(chance, feature):
    found = check(sample(chance, 500, **{feature: 1}), sample(chance, 2_500))
    assert found.drifted == [feature]


def test_digits_that_do_not_come_are_named(chance):
    reference = sample(chance, 2_500)
    few = reference.probabilities.argmax(axis=1) < 2
    found = check(Reference(*(part[few][:300] for part in reference)), reference)
    assert "digit" in found.drifted


def test_of_too_few_images_nothing_is_said(chance):
    reference = sample(chance, 2_500)
    found = check(sample(chance, NEEDED - 1, ink=9), reference)
    assert (found.images, found.enough) == (NEEDED - 1, False)
    assert not found.p_values
    assert not found.psi
    assert not found.drifted
    assert check(sample(chance, NEEDED, ink=9), reference).drifted == ["ink"]
    assert not check(sample(chance, 0), reference).enough


def test_p_values_are_corrected_for_the_number_of_tests(chance):
    window, reference = sample(chance, 200, sharpness=0.5), sample(chance, 500)
    found = list(check(window, reference).p_values.values())
    alone = [
        ks_2samp(*samples, method="asymp").pvalue
        for samples in zip(window.probabilities.T, reference.probabilities.T, strict=True)
    ]
    assert [each.value for each in found] == holm(alone)
    assert min(each.value for each in found) == pytest.approx(10 * min(alone))
    assert [each.drift for each in found] == [each.value < FALSE_ALARMS for each in found]
    assert 0 < sum(each.drift for each in found) < 10


def test_psi_is_what_it_is_defined_as():
    now, then = np.array([300, 700]), np.array([500, 500])
    assert psi(now, then) == pytest.approx(0.2 * np.log(0.7 / 0.3), rel=0.01)
    assert psi(then, 3 * then) == pytest.approx(0, abs=1e-6)


def test_an_empty_bin_counts_as_half_an_image():
    """Worked by hand: 0.4995 x ln(1000.5 / 500.5) + 0.4995 x ln(500.5 / 0.5)."""
    assert psi(np.array([1000, 0]), np.array([500, 500])) == pytest.approx(3.797, rel=1e-3)


def test_the_limit_of_psi_is_what_chance_does_not_reach(chance):
    small, large = np.full(10, 20), np.full(10, 10_000)
    assert psi_limit(large, large) == LARGE_PSI
    # The chi-square distribution with 9 degrees of freedom exceeds 33.72 once in 10,000.
    assert psi_limit(small, small) == pytest.approx(33.72 * (1 / 200 + 1 / 200), rel=1e-3)
    # Chance as Yurdakul and Naranjo say: on average as many as degrees of freedom, over the sizes.
    drawn = [chance.multinomial(1_000, [0.1] * 10) for _ in range(400)]
    mean = np.mean([psi(one, other) for one, other in zip(drawn[::2], drawn[1::2], strict=True)])
    assert mean == pytest.approx(chi2.mean(9) * 2 / 1_000, rel=0.15)


def test_bins_hold_a_tenth_of_the_reference_each_if_it_has_no_ties():
    reference = np.arange(1_000, dtype="f4")
    now, then = decile_counts(reference[:100], reference)
    assert then.tolist() == [100] * 10
    assert now.tolist() == [100] + [0] * 9
    now, then = decile_counts(np.ones(5, "f4"), np.ones(50, "f4"))  # all the same
    assert (now.sum(), then.sum()) == (5, 50)
    assert psi(now, then) < psi_limit(now, then)
