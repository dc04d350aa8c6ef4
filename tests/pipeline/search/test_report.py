import xml.etree.ElementTree as ElementTree

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from pipeline.reports import theme
from pipeline.search import report

SPACE = {
    "optimizer.learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
    "batch_size": CategoricalDistribution([64, 128, 256]),
    "model.filters": IntDistribution(32, 96, step=16),
    "model.dense": CategoricalDistribution([128]),
}


def drawn(count):
    """The plots of a study with so many completed trials, one pruned and one failed."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for number in range(count):
        study.tell(study.ask(SPACE), 0.1 + number / 100)
    for state in (TrialState.PRUNED, TrialState.FAIL):
        study.tell(study.ask(SPACE), state=state)
    return report.plots(study, "val_loss", seed=1)


def words(figure):
    """The texts of the figure's SVG."""
    root = ElementTree.fromstring(theme.svg(figure))  # noqa: S314  our own
    return {
        "".join(text.itertext()).strip() for text in root.iter("{http://www.w3.org/2000/svg}text")
    }


@pytest.mark.parametrize("count", [1, 9])
def test_the_same_trials_give_the_same_bytes(count):
    first, second = ({k: theme.svg(f) for k, f in drawn(count).items()} for _ in range(2))
    assert first == second


def test_plots_name_the_metric_and_every_setting():
    figures = drawn(9)
    assert {"trial", "val_loss"} <= words(figures["history"])
    assert set(SPACE) <= words(figures["importance"])
    assert {"optimizer", "learning", "rate", "64", "128", "256"} <= words(figures["parallel"])


def test_importance_needs_trials():
    assert drawn(3).keys() == {"history", "parallel"}
