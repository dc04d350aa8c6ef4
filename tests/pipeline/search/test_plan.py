import re

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pipeline import config
from pipeline.config import CONF, PipelineError
from pipeline.search import plan
from pipeline.search.plan import Search

SEARCHES = sorted(path.stem for path in (CONF / "search").glob("*.yaml"))


# Its own, so that the shipped ones may change.
SMALL = """
# @package _global_
run: 3
metric: val_loss
trials: 4
processes: 1
pruner: {startup_trials: 8, warmup_epochs: 4}
experiment: true
fixed:
  epochs: 10
  optimizer: {schedule: cosine}
space:
  optimizer:
    learning_rate: {low: 5e-4, high: 8e-3, log: true}
  batch_size: {choices: [64, 128, 256]}
  model:
    filters: {low: 32, high: 96, step: 16}
    dropout: {low: 0.1, high: 0.3}
"""


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory):
    """A folder in which Hydra finds the search `small` too."""
    folder = tmp_path_factory.mktemp("conf")
    (folder / "search").mkdir()
    (folder / "search/small.yaml").write_text(SMALL.lstrip())
    planned.place = folder


def planned(*overrides, name="small"):
    """The plan of a search as the command makes it."""
    ConfigStore.instance().store(name="search_schema", node=Search)
    picks = ["data=digits", "seed=42", "threads=2", f"search={name}"]
    picks.append(f"hydra.searchpath=[file://{planned.place}]")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return plan.make_plan(
            name, config.checked(compose("search", [*picks, *overrides]), Search, "conf/search/")
        )


@pytest.mark.parametrize("name", SEARCHES)
def test_every_search_that_is_shipped_can_start(name):
    found = planned(name=name)
    assert re.fullmatch(rf"{name}-digits-[0-9a-f]{{6}}", found.study)
    assert found.space


def test_the_present_values_are_those_that_the_space_has():
    own = OmegaConf.load(CONF / "run/3.yaml")
    filters, dropout = own.model.filters, own.model.dropout
    inside = planned(
        *(f"space.optimizer.learning_rate.high={own.optimizer.learning_rate}", "~space.model"),
        f"space.batch_size.choices=[8,{own.batch_size}]",
    )
    assert inside.present() == {
        "optimizer.learning_rate": own.optimizer.learning_rate,
        "batch_size": own.batch_size,
    }
    outside = planned(
        f"space.optimizer.learning_rate.high={own.optimizer.learning_rate * 0.99}",
        f"space.batch_size.choices=[{own.batch_size + 1}]",
        f"space.model.filters={{low: {filters - 1}, high: {filters + 1}, step: 2}}",
        f"space.model.dropout.low={dropout + 0.01}",
        f"space.model.dropout.high={dropout + 0.02}",
    )
    assert outside.present() == {}


def test_numbers_say_how_they_are_sampled():
    space = planned("+space.epochs={low: 1, high: 9, step: 2}", "~fixed.epochs").space
    assert space["epochs"] == IntDistribution(1, 9, step=2)
    assert space["optimizer.learning_rate"] == FloatDistribution(5e-4, 8e-3, log=True)
    assert space["batch_size"] == CategoricalDistribution([64, 128, 256])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["+space.optimizer.lerning_rate={low: 0.1, high: 0.2}"],
            "space.optimizer.lerning_rate: no run has optimizer.lerning_rate; "
            "did you mean optimizer.learning_rate?",
        ),
        (["+fixed.epoch=3"], "fixed.epoch: no run has epoch; did you mean epochs?"),
        (["+space.epochs={low: 1, high: 3}"], "epochs is both under fixed and under space"),
        (["+space.epochs=3"], "space.epochs must be {low, high} or {choices}"),
        (["space.model.dropout.high=0.95"], "space.model.dropout: model.dropout must be from 0"),
        (
            ["space.model.filters.low=32.5", "space.model.filters.high=64.5"],
            "space.model.filters: Value '32.5'",
        ),
        (["space.model.filters.step=10"], "space.model.filters: The distribution is specified by"),
        (["space.batch_size.choices=[64,many]"], "space.batch_size: Value 'many'"),
        (["space.batch_size.choices=[]"], "space.batch_size: The `choices` must contain"),
        (["+space.batch_size.low=3"], "space.batch_size: "),
        (["~space.model.dropout.high"], "space.model.dropout: "),
        (["space.model.dropout.low=0.5"], "space.model.dropout: `low <= high` must hold"),
        (["+space.model.dropout.stpe=0.1"], "space.model.dropout has no stpe; did you mean step?"),
        (
            ["~space.optimizer", "~space.batch_size", "~space.model"],
            "space must be a run's keys with {low, high} or {choices}, not empty",
        ),
        (["fixed.epochs=0"], "fixed: epochs must be positive, not 0"),
        (["fixed.optimizer.schedule=sine"], "fixed.optimizer.schedule: "),
        (["trials=0"], "trials must be positive, not 0"),
        (["processes=-1"], "processes must be positive, not -1"),
        (["pruner.warmup_epochs=-1"], "pruner.warmup_epochs must be 0 or positive, not -1"),
        (["data.split.validation=10"], "data must be as conf/data/ has it, not changed"),
        (["trials=???"], "no value for trials in conf/search/"),
    ],
)
def test_what_cannot_be_searched_is_refused_by_name(overrides, message):
    with pytest.raises(PipelineError, match=re.escape(message)):
        planned(*overrides)


@pytest.mark.parametrize("override", ["trials=many", "metric=loss", "prunner.startup_trials=1"])
def test_a_wrong_type_or_key_is_refused(override):
    with pytest.raises((OmegaConfBaseException, HydraException)):
        planned(override)


def test_what_decides_the_outcome_is_another_study():
    name = planned().study
    for same in ("trials=5", "processes=2", "experiment=false", "pruner.startup_trials=1"):
        assert planned(same).study == name
    different = [
        planned(override).study
        for override in (
            *("seed=1", "threads=1", "metric=val_accuracy", "fixed.epochs=3", "data=mnist"),
            *("space.model.dropout.high=0.2", "~space.model.dropout"),
        )
    ]
    assert len({name, *different}) == 8


def test_an_edited_run_is_another_study(tmp_path, monkeypatch):
    before = planned().study
    conf = tmp_path / "conf"
    for source in CONF.rglob("*.yaml"):
        copy = conf / source.relative_to(CONF)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(source.read_text().replace("kernel: 5", "kernel: 3"))
    monkeypatch.setattr(plan, "CONF", conf)
    monkeypatch.setitem(globals(), "CONF", conf)
    assert planned().study != before


def test_a_trial_trains_with_few_digits():
    made = planned()
    settings = made.settings({"optimizer.learning_rate": 0.0018347153, "batch_size": 64})
    assert settings == {
        "epochs": 10,
        "optimizer.schedule": "cosine",
        "optimizer.learning_rate": 0.00183,
        "batch_size": 64,
    }
