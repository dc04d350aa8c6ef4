import re

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from support.processes import python, refused

from pipeline import config
from pipeline.config import CONF, Config, PipelineError, arguments, section, settings

FEEDBACK = "data=mnist_feedback"
RUNS = sorted(path.stem for path in (CONF / "run").glob("*.yaml"))

FLIP = "data.augmentation.flip=0.5"


@pytest.mark.parametrize("run", RUNS)
def test_every_run_is_complete(configured, run):
    cfg = configured(run)
    assert isinstance(cfg, Config)
    assert cfg.run == int(run)


@pytest.mark.parametrize("run", RUNS)
def test_every_run_has_the_same_keys_in_the_same_order(run):
    def keys(path):
        flat = OmegaConf.to_container(OmegaConf.load(path))
        return [(key, list(v) if isinstance(v, dict) else None) for key, v in flat.items()]

    assert keys(CONF / "run" / f"{run}.yaml") == keys(CONF / "run" / "1.yaml")


DATA = ["mnist", "digits", "mnist_feedback", "letters", "shapes", "fashion_mnist"]


@pytest.mark.parametrize("data", DATA)
def test_every_data_set_is_complete(configured, data):
    assert configured(1, f"data={data}").data.name == data


def test_feedback_joins_the_very_files_and_split_of_mnist(configured):
    """So that a model with and one without it are judged on the same images."""
    plain, joined = (configured(1, f"data={data}").data for data in ("mnist", "mnist_feedback"))
    for key in ("format", "files", "split"):
        assert getattr(joined, key) == getattr(plain, key)
    assert joined.mirrors[1:] == plain.mirrors
    assert plain.feedback is None


def test_the_root_configuration_holds_no_value():
    root = OmegaConf.load(CONF / "config.yaml")
    assert OmegaConf.missing_keys(root) == {"seed", "threads", "runs"}
    assert set(root) == {"defaults", "hydra", "seed", "threads", "runs"}


@pytest.mark.parametrize("run", RUNS)
def test_dvc_rewrites_a_run_file_without_changing_it(tmp_path, run):
    from dvc.utils.serialize import modify_yaml

    source = CONF / "run" / f"{run}.yaml"
    copy = tmp_path / "run.yaml"
    copy.write_bytes(source.read_bytes())
    with modify_yaml(str(copy)) as content:
        content["epochs"] = content["epochs"]
    assert copy.read_text() == source.read_text()


@pytest.mark.parametrize(
    ("typed", "given"),
    [
        (["run=1,2,3"], ["run='1','2','3'"]),
        (["run='1'"], ["run='1'"]),
        (["run=best"], ["run=best"]),
        (["epochs=3"], ["epochs=3"]),
    ],
)
def test_numbers_of_runs_are_quoted_for_hydra(typed, given):
    assert arguments(typed, OmegaConf.create()) == given


def test_what_is_typed_wins_over_the_picks():
    picks = OmegaConf.create({"seed": 42, "data": "mnist", "runs": [1, 2]})
    assert arguments(["seed=7", "run=2"], picks) == [
        "data=mnist",
        "runs=[1, 2]",
        "seed=7",
        "run='2'",
    ]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("-m run=1, 2,3", "run=1, 2,3: .* type run=1,2,3$"),
        ("run=1 ,2", "run=1 ,2: .* type run=1,2$"),
        ("epochs=3,", "^epochs=3,: values are listed with commas and no spaces$"),
        ("run=1 epochs", "epochs: a setting is typed as key=value"),
    ],
)
def test_an_argument_that_is_no_setting_is_named(typed, message):
    with pytest.raises(PipelineError, match=message):
        arguments(typed.split(), OmegaConf.create())


def test_options_keep_their_values():
    typed = ["-m", "run='1'", "--cfg", "job", "~epochs"]
    assert arguments(typed, OmegaConf.create()) == typed


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lr=1", "lr"),
        ("epochs=many", "epochs"),
        ("optimizer.name=adamm", "adamm"),
        ("optimizer.schedule=sine", "sine"),
    ],
)
def test_a_wrong_key_or_type_is_refused_by_name(configured, override, message):
    with pytest.raises((OmegaConfBaseException, HydraException), match=message):
        configured(1, override)


@pytest.mark.parametrize(
    ("override", "rule"),
    [
        ("epochs=0", "positive, not 0"),
        ("batch_size=-1", "positive, not -1"),
        ("model.kernel=0", "positive"),
        ("model.kernel=29", "from 1 to 28"),
        ("model.pool=27", "at most 26"),
        ("model.dropout=1.0", "from 0 to 0.9"),
        ("model.dense=-1", "0 or positive"),
        ("model.contrast=inf", "finite, not inf"),
        ("optimizer.learning_rate=0", "positive"),
        ("optimizer.learning_rate=nan", "finite, not nan"),
        ("augmentation.shift=-2", "0 or positive"),
        ("augmentation.zoom=1", "below 1"),
        ("augmentation.drawn=1.5", "from 0 to 1"),
        ("data.input.channels=2", "1 (grey) or 3 (colour)"),
        ("data.input.height=4", "from 8 to 512"),
        ("data.classes=[0]", "from 2 to 256 labels"),
        ("data.classes=[0,1,1]", "distinct"),
        ("data.augmentation.flip=0.6", "from 0 to 0.5"),
        ("model.blocks=[[8],[]]", "lists of positive numbers"),
        ("model.blocks=[[8,-1]]", "lists of positive numbers"),
        ("model.blocks=[[8],[8],[8],[8],[8],[8]]", "at most"),
        ("early_stopping.patience=-1", "0 or positive"),
        ("seed=-1", "from 0 to 2147483647"),
        ("runs=[]", "at least one run"),
        ("data.feedback.held_out=0", "above 0, at most 0.9, not 0"),
        ("data.feedback.largest_share=0.6", "above 0, at most 0.5"),
        ("data.feedback.least=0", "positive"),
        ("name='a$b$c'", "letters"),
        ("name='a..b'", "letters"),
        ("name='a/b'", "letters"),
        ("name=''", "letters"),
    ],
)
def test_a_value_out_of_its_range_is_refused_by_name(configured, override, rule):
    key = override.partition("=")[0]
    with pytest.raises(PipelineError, match=rf"^{re.escape(key)} must be .*{re.escape(rule)}"):
        configured(1, "data=mnist_feedback", override)


def test_the_largest_kernel_and_pool_are_allowed(configured):
    assert configured(1, "model.kernel=28", "model.pool=1").model.kernel == 28
    assert configured(1, "model.kernel=1", "model.pool=28").model.pool == 28


@pytest.mark.parametrize(
    ("classes", "labels", "digits"),
    [
        ("[0,1,2,3,4,5,6,7,8,9]", list(range(10)), True),
        ("[3,-1]", [3, -1], False),
        ("[a,1]", ["a", "1"], False),
        ("['01',2]", ["01", "2"], False),
    ],
)
def test_labels_are_numbers_if_all_are_whole(configured, classes, labels, digits):
    data = configured(1, f"data.classes={classes}").data
    assert (data.labels, data.digits) == (labels, digits)


def test_digits_of_another_size_are_refused(configured):
    with pytest.raises(PipelineError, match=r"^data\.input must be 28x28 pixels of 1 channel"):
        configured(1, "data.input.height=32")


def test_what_is_null_is_not_recorded(configured):
    plain, changed = configured(1), configured(1, "model.residual=true", FLIP)
    assert "residual" not in config.settings(plain)["model"]
    assert "data_augmentation" not in config.settings(plain)
    assert config.settings(changed)["model"]["residual"] is True
    assert config.settings(changed)["data_augmentation"] == {"flip": 0.5}


def test_every_rule_is_for_a_number_of_the_configuration(configured):
    numbers = config.flat(OmegaConf.to_container(OmegaConf.structured(configured(1, FEEDBACK))))
    known = {key for key, n in numbers.items() if isinstance(n, int | float)}
    known |= {
        "data.augmentation.flip",
        "data.augmentation.colour",
        "data.augmentation.repeat",
    }  # null in conf/
    known |= {"trials", "processes", "pruner.startup_trials", "pruner.warmup_epochs"}
    assert set(section._RULES) <= known


def test_a_missing_value_is_refused_by_name():
    config.register_schema()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("config", ["seed=1", "threads=1"])
    with pytest.raises(PipelineError, match="no value for runs in conf/"):
        config.resolved(composed, "1")


def test_settings_are_what_decides_the_weights(configured):
    chosen = settings(configured(3))
    assert chosen["optimizer"]["schedule"] == "cosine"
    assert chosen["seed"] == 42
    assert chosen["data"] == "mnist"
    assert not {"runs", "run", "name"} & set(chosen)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["run=2", "data=digits"], "error: data/processed/digits.npz is missing"),
        (["run=9"], "Could not find 'run/9' Available options"),
        (["epochs=abc"], "error: Error merging override epochs=abc"),
        (["run=1", "epoch=3"], "error: no run has the setting epoch; did you mean epochs?"),
        (["optimizer.lr=3"], "did you mean optimizer.learning_rate?"),
    ],
)
def test_a_stage_that_cannot_run_says_why_without_a_traceback(workspace, typed, message):
    assert message in refused("pipeline.train", *typed)
    assert list(workspace.iterdir()) == [workspace / "params.yaml"]


def test_importing_the_pipeline_leaves_the_garbage_collector_alone():
    code = """if True:
        import gc
        before = gc.get_threshold()
        import pipeline, pipeline.config, pipeline.config.cli, pipeline.fetch
        assert gc.get_threshold() == before
        pipeline.config.cli.run(lambda arguments: print(gc.get_threshold()[0]))
    """
    done = python("-c", code)
    assert done.stdout == "20000\n", "a command collects rarely"
