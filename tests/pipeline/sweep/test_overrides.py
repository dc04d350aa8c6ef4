import json
import re
from dataclasses import asdict, replace

import pytest
from dvc.utils.hydra import apply_overrides
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from support import sweep_repo
from support.sweep_repo import conf, jobs

from pipeline import config
from pipeline.config import PipelineError
from pipeline.sweep import overrides
from pipeline.sweep.overrides import Job

RUN_2 = "conf/run/2.yaml"


@pytest.fixture(autouse=True)
def repository(workspace):
    return sweep_repo.Repository(workspace)


def one(*typed):
    (job,) = jobs(*typed)
    return job


def settings(*typed):
    """What is behind each `-S`, but for the run."""
    job = one(*typed)
    arguments = job.arguments()
    assert arguments[::2] == ["-S"] * (len(arguments) // 2)
    first, *others = arguments[1::2]
    assert first == f"runs=[{job.run}]"
    return others


@pytest.mark.parametrize(
    ("typed", "written"),
    [
        ("seed=7", ["seed=7"]),
        ("threads=1", ["threads=1"]),
        ("data=digits", ["data='digits'"]),
        ("run=3 epochs=97", ["conf/run/3.yaml:epochs=97"]),
        ("run=2 model.filters=7 epochs=97", [f"{RUN_2}:model.filters=7", f"{RUN_2}:epochs=97"]),
        ("run=2 augmentation.shear=9", [f"{RUN_2}:augmentation.shear=9.0"]),
        ("optimizer.name=sgd", ["conf/run/1.yaml:optimizer.name='sgd'"]),
        ("data.split.validation=9", ["conf/data/mnist.yaml:split.validation=9"]),
        ("data.split.test=9 data=digits", ["conf/data/digits.yaml:split.test=9", "data='digits'"]),
    ],
)
def test_each_setting_goes_where_it_is_defined(typed, written):
    assert settings(*typed.split()) == written


def test_what_the_files_say_already_is_not_written():
    rate, size = conf(3, "optimizer.learning_rate"), conf(3, "batch_size")
    typed = [f"batch_size={size}", f"optimizer.learning_rate={float(rate):e}"]
    assert settings("run=3", *typed, "seed=42") == []
    assert settings("run=3", *typed, "seed=43") == ["seed=43"]


def test_a_job_knows_what_it_takes():
    job = one("run=3", "data=digits", "threads=1")
    assert (job.run, job.run_name, job.data, job.threads) == (3, "optimized", "digits", 1)
    assert (one().run, one().data) == (1, "mnist")


def test_a_job_is_called_by_what_was_typed():
    job = one("run=3", "epochs=3", "optimizer.learning_rate=1e-3")
    assert job.name == f"run3-epochs=3-learning_rate=0.001-{job.digest}"
    assert job.label == "epochs=3 learning_rate=0.001"
    assert one("run=2").label == ""
    # Keys that end alike are written in full.
    assert one("name=mine", "optimizer.name=sgd").label == "name=mine optimizer.name=sgd"


def test_long_names_are_cut_and_still_differ():
    typed = ["run=3", "model.dense_dropout=0.1", "augmentation.rotation=5", "model.filters=16"]
    found = jobs(*typed, "optimizer.warmup_epochs=1", "early_stopping.patience=2", "epochs=3,4")
    names = {job.name for job in found}
    assert len(names) == 2
    assert all(len(name) <= 78 for name in names)
    assert found[1].label.endswith("warmup_epochs=1.0 patience=2 epochs=4")


@pytest.mark.parametrize(
    "value", ["a b", "a/b", "..", "x.lock", "a~b^c:d", "-", "@{", "ü", ".", "a..b"]
)
def test_git_takes_every_name(repository, value):
    job = replace(one(), typed={"name": value})
    repository.git("check-ref-format", f"refs/exps/ab/cd/{job.name}")
    assert not job.name.startswith("-")


def test_settings_are_the_same_typed_or_not():
    third = one("run=3")
    same = one("run=3", f"batch_size={conf(3, 'batch_size')}", "seed=42")
    assert (same.digest, same.name == third.name) == (third.digest, False)
    assert third.digest != one("run=3", "batch_size=97").digest
    assert third.digest != one("run=2").digest


def test_a_value_is_the_same_however_it_is_typed():
    names = {one(f"optimizer.learning_rate={typed}").name for typed in ("1e-3", "0.001", "1.0E-3")}
    assert len(names) == 1
    assert "learning_rate=0.001" in names.pop()
    with pytest.raises(PipelineError, match=r"two jobs of the sweep are the same: run1-learning"):
        jobs("optimizer.learning_rate=1e-3,0.001")


def test_other_code_is_another_job(repository):
    first = one().digest
    assert re.fullmatch("[0-9a-f]{12}", first)
    (repository.folder / "serve/static").mkdir(parents=True)
    for indifferent in ("README.md", "serve/static/style.css"):
        (repository.folder / indifferent).write_text("a note")
        repository.git("add", indifferent)
    assert one().digest == first
    (repository.folder / "pipeline").mkdir()
    (repository.folder / "pipeline" / "train.py").write_text("new")
    repository.git("add", "pipeline")
    changed = one().digest
    assert changed != first
    repository.commit("new code")
    assert one().digest not in (first, changed)


def test_an_edited_run_is_another_job(repository, monkeypatch):
    monkeypatch.setattr(config, "CONF", repository.folder / "conf")
    first = one("run=3").digest
    repository.edit("conf/run/3.yaml", "epochs", 97)
    assert one("run=3").digest != first
    assert one("run=3", f"epochs={conf(3, 'epochs')}").digest == first
    assert settings("run=3", "epochs=97") == []


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("epoch", "epochs"),
        ("optimizer.lr", "optimizer.learning_rate"),
        ("data.split.validaton", "data.split.validation"),
    ],
)
def test_a_key_that_no_run_has_is_refused_with_the_nearest(typed, meant):
    with pytest.raises(PipelineError) as error:
        jobs("run=1,2", f"{typed}=1")
    assert str(error.value) == f"no run has the setting {typed}; did you mean {meant}?"


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("epochs=many", "'many' of type 'str' could not be converted to Integer"),
        ("model.dropout=0.1,0.95", "model.dropout must be from 0 to 0.9, not 0.95"),
        ("epochs=interval(1,2)", "epochs=interval(1,2): list the values"),
        ("data=glob(*)", "data=glob(*): list the values"),
        ("run=5", "Could not find 'run/5' Available options in 'run': 1 2 3 4"),
        (
            "data=mnits",
            "Could not find 'data/mnits' Available options in 'data': digits fashion_mnist letters",
        ),
        ("run=first", "run=first: list the runs by number: run=1,2,3"),
        ("run=range(1,4)", "list the runs by number"),
        ("epochs", "a setting is typed as key=value"),
        ("runs=[1,2]", "a job trains one run: type run=1,2,3, not runs"),
        ("run=2,2", "two jobs of the sweep are the same: run2-"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(typed, why):
    with pytest.raises(PipelineError) as error:
        jobs(typed)
    assert why in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("typed", ["+epochs=3", "++epochs=3", "+depth=2", "~epochs"])
def test_keys_are_neither_added_nor_deleted(typed):
    with pytest.raises(PipelineError, match="cannot be added or deleted, only changed"):
        jobs(typed)


@pytest.mark.parametrize(
    "value", ["plain", "two words", "it's", 'a "b"', "back\\slash", "a,b=c", "[1]", "1e-3", "null"]
)
def test_dvc_reads_strings_back_as_they_were(repository, value):
    job = replace(one(), typed={"name": value}, changed=["name"])
    file, _, override = job.arguments()[-1].partition(":")
    assert OverridesParser.create().parse_override(override).value() == value
    apply_overrides(repository.folder / file, [override])
    assert OmegaConf.load(repository.folder / file).name == value


def test_dvc_writes_numbers_as_they_were_meant(repository):
    job = one("optimizer.learning_rate=1e-5", "model.dropout=0", "epochs=3")
    for argument in job.arguments()[3::2]:
        file, _, override = argument.partition(":")
        apply_overrides(repository.folder / file, [override])
    written = OmegaConf.load(repository.folder / "conf" / "run" / "1.yaml")
    assert (written.optimizer.learning_rate, written.model.dropout, written.epochs) == (1e-5, 0, 3)
    assert isinstance(written.optimizer.learning_rate, float)


def test_a_plan_survives_json():
    found = jobs("run=1,3", "optimizer.learning_rate=1e-3,2.1e-3", "data=digits")
    assert [Job(**json.loads(json.dumps(asdict(job)))) for job in found] == found


@pytest.mark.parametrize(
    "typed",
    [
        "run=3,1 epochs=2,1 seed=5",
        "epochs=1,2 run=2 epochs=3,4",
        "seed=range(1,4) optimizer.learning_rate=1e-3,2.1e-3",
        "hydra/launcher=joblib run=1,2 hydra.launcher.n_jobs=2",
    ],
)
def test_jobs_come_in_hydras_order(typed):
    arguments = config.arguments(typed.split(), OmegaConf.create())
    parsed = OverridesParser.create().parse_overrides(arguments)
    own = [override for override in parsed if not override.is_hydra_override()]
    (batch,) = BasicSweeper.split_arguments(own, None)
    assert [job.overrides for job in overrides.jobs(arguments)] == batch
    assert len(batch) > 1
