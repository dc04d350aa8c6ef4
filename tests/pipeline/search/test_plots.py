import xml.etree.ElementTree as ElementTree

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from pipeline.reports import theme
from pipeline.search import plots
from pipeline.search.plan import Metric

SPACE = {
    "optimizer.learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
    "batch_size": CategoricalDistribution([64, 128, 256]),
    "model.filters": IntDistribution(32, 96, step=16),
    "model.dense": CategoricalDistribution([128]),
}


def ended(count, *others):
    """Trials with a value from 0.1 on, the best first, and others in these states."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for number, state in enumerate([TrialState.COMPLETE] * count + list(others)):
        trial = study.ask(SPACE)
        if state is TrialState.PRUNED:
            trial.report(0.5, 1)
        study.tell(trial, 0.1 + number / 100 if state is TrialState.COMPLETE else None, state)
    return study.trials


DRAWINGS = {
    "history": lambda: plots.history(ended(9, TrialState.PRUNED, TrialState.FAIL), Metric.val_loss),
    "accuracy": lambda: plots.history(ended(3), Metric.val_accuracy),
    "importance": lambda: plots.importance(dict.fromkeys(SPACE, 0.25), list(SPACE)),
    "unknown": lambda: plots.importance({}, list(SPACE)),
    "parallel": lambda: plots.parallel(ended(9), SPACE, Metric.val_loss),
    "alone": lambda: plots.parallel(ended(1), SPACE, Metric.val_loss),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_the_same_trials_give_the_same_bytes(name, tmp_path):
    def written():
        targets = [tmp_path / "picture.png", tmp_path / "picture.svg"]
        theme.save(DRAWINGS[name](), *targets)
        return [path.read_bytes() for path in targets]

    assert written() == written()


def words(figure):
    """What an SVG of the figure says."""
    root = ElementTree.fromstring(theme.svg(figure))  # noqa: S314  our own
    return {
        "".join(text.itertext()).strip() for text in root.iter("{http://www.w3.org/2000/svg}text")
    }


def test_the_legend_says_what_became_of_the_trials():
    assert {"best so far", "trained to the end", "stopped early", "failed"} <= words(
        DRAWINGS["history"]()
    )
    assert not {"stopped early", "failed"} & words(DRAWINGS["accuracy"]())


def test_every_setting_has_its_share():
    drawn = words(DRAWINGS["importance"]())
    assert set(SPACE) <= drawn
    assert "25 %" in drawn
    assert "not enough trials to tell" in words(DRAWINGS["unknown"]())


def test_every_setting_has_an_axis_with_its_values():
    drawn = words(DRAWINGS["parallel"]())
    assert {"0.0001", "0.01", "64", "128", "256", "32", "96", "0.1000", "0.1800"} <= drawn
    assert {"best trial", "best quarter", "other trials"} <= drawn


def test_lines_go_through_the_values_of_their_trials():
    trials = ended(9)
    axes = DRAWINGS["parallel"]().axes[0]
    lines = [line for line in axes.lines if len(line.get_xdata()) == len(SPACE) + 1]
    best = next(line for line in lines if line.get_linewidth() > 2)
    chosen = trials[0].params
    assert best.get_ydata()[1] == [64, 128, 256].index(chosen["batch_size"]) / 2
    assert best.get_ydata()[2] == (chosen["model.filters"] - 32) / 64
    assert best.get_ydata()[-1] == 0
    assert len(lines) == 9


def test_the_line_of_the_best_never_gets_worse():
    def best(metric):
        axes = plots.history(ended(4), metric).axes[0]
        line = next(line for line in axes.lines if line.get_label() == "best so far")
        return [round(value, 2) for value in line.get_ydata()]

    assert best(Metric.val_accuracy) == [0.1, 0.11, 0.12, 0.13, 0.13]
    assert best(Metric.val_loss) == [0.1] * 5
