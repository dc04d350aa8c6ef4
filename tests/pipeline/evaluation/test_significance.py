import numpy as np
import pytest
from scipy.stats import binomtest

from pipeline.evaluation import significance


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (9912, 10_000), (360, 360)])
def test_wilson_follows_its_formula(successes, trials):
    z, share = 1.959963984540054, successes / trials
    centre = (share + z**2 / 2 / trials) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * np.sqrt(share * (1 - share) / trials + (z / 2 / trials) ** 2)
    assert significance.wilson(successes, trials) == pytest.approx((centre - half, centre + half))


def test_mcnemar_is_symmetrical():
    random = np.random.default_rng(3)
    first, second = random.random(400) < 0.95, random.random(400) < 0.9
    there, back = significance.mcnemar(first, second), significance.mcnemar(second, first)
    assert there.p == back.p
    assert (there.only_first, there.only_second) == (back.only_second, back.only_first)
    assert there.p == binomtest(there.only_first, there.only_first + there.only_second).pvalue


def test_mcnemar_knows_what_chance_does_not_do():
    first, second = np.ones(1000, bool), np.arange(1000) >= 20
    assert significance.mcnemar(first, second) == (20, 0, pytest.approx(2 * 0.5**20))
    assert significance.mcnemar(second, second) == (0, 0, 1.0)


def test_holm_corrects_as_published():
    # Holm 1979's procedure, as R's p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") has it.
    assert significance.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert significance.holm([0.6, 0.7]) == [1.0, 1.0]
    assert significance.holm([0.02]) == [0.02]
    assert significance.holm([]) == []


def test_a_p_below_five_per_cent_is_significant():
    p_values = (0.0, 0.049, 1 - 0.95, 0.051)
    assert [significance.is_significant(p) for p in p_values] == [True, True, False, False]
