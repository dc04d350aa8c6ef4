"""The search with a stand-in for the stages: it trains nothing, and does as its orders say."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import mlflow
import optuna
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from support.processes import refused
from support.sweep_repo import GitFolder

from pipeline.config import CONF, PipelineError
from pipeline.config.schema import checked
from pipeline.registry import mlflow_runs
from pipeline.search import cli as search
from pipeline.search import scheduler
from pipeline.search.plan import Search

pytestmark = pytest.mark.slow  # a process for each trial

# The stand-in's val_loss is the learning rate, of which a trial has three digits.
PRESENT = float(f"{OmegaConf.load(CONF / 'run/3.yaml').optimizer.learning_rate:.3g}")
SEARCH = f"""
# @package _global_
run: 3
metric: val_loss
trials: 4
processes: 1
pruner: {{startup_trials: 99, warmup_epochs: 1}}
experiment: false
fixed:
  epochs: 3
space:
  optimizer:
    learning_rate: {{low: {PRESENT / 4}, high: {PRESENT * 4}, log: true}}
"""

# `orders` beside the script holds a word for the next training that reads it.
STAGE = """
import json, os, signal, sys, time
from pathlib import Path

stage, *typed = sys.argv[1:]
told = dict(word.split("=", 1) for word in typed)
data = Path(f"data/processed/{told['data']}.npz")
if stage == "fetch":
    Path("data/raw/digits").mkdir(parents=True, exist_ok=True)
elif stage == "preprocess":
    data.parent.mkdir(parents=True)
    data.write_text("made once")
    print("made", file=Path(__file__).with_name("made").open("a"))
else:
    assert data.read_text() == "made once"
    assert Path("params.yaml").exists()
    assert os.environ["DVC_ROOT"] == os.getcwd()
    orders = Path(__file__).with_name("orders")
    try:
        order = orders.read_text()
        orders.unlink()
    except FileNotFoundError:
        order = ""
    rate = float(told["optimizer.learning_rate"])
    folder = Path("reports/train/3/plots/metrics")
    folder.mkdir(parents=True)
    for epoch in range(1, int(told["epochs"]) + 1):
        for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate"):
            with (folder / f"{name}.tsv").open("a") as file:
                if epoch == 1:
                    print("step", name, sep="\\t", file=file)
                print(epoch, rate + 1 / epoch, sep="\\t", file=file)
        print("epoch", epoch, flush=True)
        if order == "fail" or told.get("batch_size") == "256":
            sys.exit("out of memory")
        if order in ("SIGINT", "SIGTERM", "SIGKILL"):
            os.kill(os.getppid(), getattr(signal, order))
        while order == "SIGKILL":
            print("still here", flush=True)
        if order == "wait" or order.startswith("SIG"):
            signal.pause()
    model = Path("models/runs/3/model.json")
    model.parent.mkdir(parents=True)
    model.write_text(json.dumps({"metrics": {"val_loss": rate, "val_accuracy": 1 - rate}}))
"""


@pytest.fixture
def orders(workspace, empty_store, monkeypatch):
    """Where to write orders; the workspace has stages that obey them."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    shutil.copy(empty_store, workspace)
    folder = workspace.parent / f"{workspace.name}-stage"
    folder.mkdir()
    (folder / "stage.py").write_text(STAGE)
    (folder / "search").mkdir()
    (folder / "search/small.yaml").write_text(SEARCH.lstrip())

    def command(stage, told):
        return [sys.executable, str(folder / "stage.py"), stage, *scheduler.typed(told)]

    monkeypatch.setattr(scheduler, "command", command)
    # The same for a search that is a process of its own.
    (folder / "search.py").write_text(
        "import sys\nfrom pipeline.search import cli as search, scheduler\n"
        f"stand_in = {str(folder / 'stage.py')!r}\n"
        "def command(stage, told):\n"
        "    return [sys.executable, stand_in, stage, *scheduler.typed(told)]\n"
        "scheduler.command = command\nsearch.run()\n"
    )
    return folder / "orders"


def told(orders, *overrides):
    """What the command is told; it finds the search `small` beside the orders."""
    picks = ("search=small", "data=digits", "seed=42", "threads=2")
    return [f"hydra.searchpath=[file://{orders.parent}]", *picks, *overrides]


@pytest.fixture
def run(orders):
    """The search as the command runs it, in this process."""

    def searched(*overrides):
        ConfigStore.instance().store(name="search_schema", node=Search)
        with initialize_config_dir(str(CONF), version_base="1.3"):
            composed = compose("search", told(orders, *overrides))
            search.main("small", checked(composed, Search, "conf/search/"))

    return searched


def start(orders, *overrides):
    """The search as a process."""
    return subprocess.Popen(
        [sys.executable, orders.with_name("search.py"), *told(orders, *overrides)],
        # Under coverage's tracing Hydra believes that it is debugged.
        env={**os.environ, "PYTHONPATH": str(CONF.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def trials():
    (database,) = Path("logs/search").glob("*.db")
    storage = f"sqlite:///{database.absolute()}"
    return optuna.load_study(study_name=database.stem, storage=storage).trials


def states():
    return [found.state.name for found in trials()]


def tracked():
    """The study's run in MLflow, and those of the trials by name."""
    client = mlflow_runs.connect()
    experiment = client.get_experiment_by_name("digits").experiment_id
    found = {run.info.run_name: run for run in client.search_runs([experiment])}
    (parent,) = (run for name, run in found.items() if name.startswith("search-"))
    children = {name: run for name, run in found.items() if run is not parent}
    for child in children.values():
        assert child.data.tags[mlflow_runs.PARENT] == parent.info.run_id
    return parent, children


def rows():
    with Path("reports/search/trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_best_settings_are_shown_and_kept_and_not_trained_again(run, capsys):
    run()
    best = min(found.value for found in trials())
    assert states() == ["COMPLETE"] * 4
    output = capsys.readouterr().out
    for number, found in enumerate(trials()):
        assert f"trial {number}: val_loss {found.value:.4f} (epoch 3/3)  best" in output
    table = output.split("best of 4 completed trials")[1].split("\n\n")[0].splitlines()
    assert table[1].split() == ["learning"]
    assert table[2].split() == ["name", "val_loss", "rate"]
    assert [float(line.split()[3]) for line in table[3:]] == sorted(f.value for f in trials())
    assert float(table[3].split()[3]) == best

    assert [float(row["optimizer.learning_rate"]) for row in rows()] == [
        float(f"{found.params['optimizer.learning_rate']:.3g}") for found in trials()
    ]
    assert [(row["state"], row["epochs"]) for row in rows()] == [("complete", "3")] * 4
    for name in ("history", "importance", "parallel"):
        assert Path(f"reports/search/{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in Path(f"reports/search/{name}.svg").read_text()

    before = trials()
    run()
    assert trials() == before
    output = capsys.readouterr().out
    assert "trial 0:" not in output
    assert "best of" in output
    assert len(tracked()[1]) == 4


def test_all_is_in_mlflow_and_the_workspace_is_left_alone(run, workspace):
    before = {path: path.read_bytes() for path in workspace.rglob("*.yaml")}
    run("trials=2")
    after = {path.relative_to(workspace) for path in workspace.rglob("*") if path.is_file()}
    ours = ("logs/search/", "reports/search/", "mlflow.db", ".checkpoints/")
    assert {str(p) for p in after if not str(p).startswith(ours)} == {"params.yaml"}
    assert all(path.read_bytes() == content for path, content in before.items())
    (folder,) = Path("logs/search").glob("small-digits-*/")
    assert (folder / "trial-0000.log").read_text() == "epoch 1\nepoch 2\nepoch 3\n"
    assert not list(folder.glob("trial-*/"))

    parent, children = tracked()
    assert parent.info.status == "FINISHED"
    assert set(children) == {"trial-0", "trial-1"}
    best = min(trials(), key=lambda found: found.value)
    assert parent.data.tags["best.trial"] == str(best.number)
    assert parent.data.tags["best.optimizer.learning_rate"] == str(best.value)
    assert parent.data.metrics["val_loss"] == best.value
    first = children["trial-0"]
    assert first.info.status == "FINISHED"
    assert first.data.params == {
        **{"run": "3", "data": "digits", "seed": "42", "threads": "2", "epochs": "3"},
        "optimizer.learning_rate": str(PRESENT),
    }
    assert first.data.metrics["val_accuracy"] == 1 - PRESENT
    history = mlflow.MlflowClient().get_metric_history(first.info.run_id, "val_loss")
    assert [(metric.step, metric.value) for metric in history] == [
        *((epoch, PRESENT + 1 / epoch) for epoch in (1, 2, 3)),
        (4, PRESENT),
    ]


def test_a_hopeless_trial_is_stopped(orders, run, capsys):
    # All others are above the first one, and wait for good after an epoch.
    orders.with_name("stage.py").write_text(
        STAGE.replace('order == "wait"', f'rate > {PRESENT} or order == "wait"')
    )
    above = f"space.optimizer.learning_rate.low={PRESENT}"
    run("trials=3", above, "pruner.startup_trials=1", "pruner.warmup_epochs=1")
    assert states() == ["COMPLETE", "PRUNED", "PRUNED"]
    output = capsys.readouterr().out
    for found in trials()[1:]:
        assert found.last_step == 1
        assert f"trial {found.number}: stopped after epoch 1\n" in output
        child = tracked()[1][f"trial-{found.number}"]
        assert (child.info.status, child.data.tags["pruned"]) == ("KILLED", "true")
    assert [row["state"] for row in rows()] == ["complete", "pruned", "pruned"]


def test_a_trial_that_fails_stops_no_other(orders, run, capsys):
    orders.write_text("fail")
    run()
    assert states() == ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    log = re.search(r"trial 0: failed, exit code 1; see (\S+)", capsys.readouterr().out)[1]
    assert "out of memory" in Path(log).read_text()
    assert trials()[0].user_attrs["log"] == str(Path(log).absolute())
    assert tracked()[1]["trial-0"].info.status == "FAILED"
    assert tracked()[0].info.status == "FINISHED"


def test_a_search_in_which_all_fails_gives_up_soon_and_says_why(run):
    with pytest.raises(PipelineError, match=r"all trials fail(.|\n)*out of memory"):
        run("trials=40", "+space.batch_size={choices: [256]}")
    assert states() == ["FAIL"] * 3
    assert tracked()[0].info.status == "FAILED"
    with pytest.raises(PipelineError, match=r"no trial completed; .* rm -r logs"):
        run("trials=3", "+space.batch_size={choices: [256]}")
    assert states() == ["FAIL"] * 3


def sampled():
    """The rates of the trials that count, in the order of their places."""
    counted = [found for found in trials() if found.state.name != "FAIL"]
    counted.sort(key=lambda found: found.user_attrs["place"])
    return [found.params["optimizer.learning_rate"] for found in counted]


def test_an_interrupted_search_goes_on_as_if_it_had_not_been(
    orders, run, workspace, empty_store, monkeypatch, caplog
):
    caplog.set_level("INFO")
    run("trials=12")  # the sampler learns from the tenth on
    undisturbed = sampled()
    assert len(set(undisturbed)) == 12
    (workspace / "another").mkdir()
    for file in ("params.yaml", empty_store):
        shutil.copy(file, "another")
    monkeypatch.chdir("another")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")  # which MLflow has set by now

    orders.with_name("made").unlink()
    run("trials=5")
    orders.write_text("SIGTERM")
    with pytest.raises(SystemExit) as exit_:
        run("trials=12")
    assert exit_.value.code == 130
    assert "repeat the command to continue" in caplog.text
    assert states() == ["COMPLETE"] * 5 + ["FAIL"]
    parent, children = tracked()
    assert (parent.info.status, children["trial-5"].info.status) == ("KILLED", "KILLED")

    run("trials=12")
    assert sampled() == undisturbed
    assert states() == ["COMPLETE"] * 5 + ["FAIL"] + ["COMPLETE"] * 7
    assert tracked()[0].info.status == "FINISHED"
    assert orders.with_name("made").read_text() == "made\n"


def test_a_killed_search_blocks_nothing(orders, run):
    orders.write_text("SIGKILL")
    killed = start(orders)
    output, _ = killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL, output
    assert states() == ["RUNNING"]
    run()
    assert states()[0] == "FAIL"
    assert len([state for state in states() if state in ("COMPLETE", "PRUNED")]) == 4
    assert tracked()[1]["trial-0"].info.status == "KILLED"
    (folder,) = Path("logs/search").glob("small-digits-*/")
    assert not list(folder.glob("trial-*/"))


MEET = """\
    Path(__file__).with_name(f"here-{os.getpid()}").touch()
    while len(list(Path(__file__).parent.glob("here-*"))) < 2:
        time.sleep(0.05)
"""


def test_two_searches_at_once_share_the_trials(orders):
    # A training waits until the other search has one too.
    meet = MEET.replace("os.getpid()", "os.getppid()")
    orders.with_name("stage.py").write_text(STAGE.replace("    rate = ", meet + "    rate = "))
    both = [start(orders, "trials=8", "processes=2") for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert len(trials()) == 8
    assert {found.user_attrs["place"] for found in trials()} == set(range(8))
    assert set(states()) <= {"COMPLETE", "PRUNED"}
    said = [set(re.findall(r"^trial (\d+): ", output, re.MULTILINE)) for output in outputs]
    assert said[0] | said[1] == set(map(str, range(8)))
    assert said[0]
    assert said[1]
    assert not said[0] & said[1]
    assert len({re.search(r"best of .*", output)[0] for output in outputs}) == 1
    assert len(tracked()[1]) == 8
    assert orders.with_name("made").read_text() == "made\n"


def test_several_trials_run_at_the_same_time(orders, run):
    # Each trial waits for the other: alone it would never end.
    orders.with_name("stage.py").write_text(STAGE.replace("    rate = ", MEET + "    rate = "))
    run("trials=2", "processes=2")
    assert states() == ["COMPLETE"] * 2


def test_accuracy_is_maximised(run):
    run("metric=val_accuracy")
    best = max(trials(), key=lambda found: found.value)
    assert tracked()[0].data.tags["best.trial"] == str(best.number)
    assert [row["val_accuracy"] for row in rows()] == [str(found.value) for found in trials()]


def test_without_git_a_search_that_ends_in_an_experiment_trains_nothing(run):
    with pytest.raises(PipelineError, match="no Git repository"):
        run("experiment=true", "trials=1")
    assert not Path("logs").exists()


def test_a_failing_train_py_is_an_error_that_names_the_way_out(run, workspace):
    GitFolder(workspace).commit("without train.py")
    with pytest.raises(PipelineError, match="repeat the command"):
        run("experiment=true", "trials=1")
    assert states() == ["COMPLETE"]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["search=mine"], "Could not find 'search/mine'"),
        (["search=optimized", "trials=0"], "error: trials must be positive, not 0"),
        (["search=optimized", "data=mnst"], "Could not find 'data/mnst'"),
    ],
)
def test_a_search_that_cannot_start_says_why_without_a_traceback(workspace, typed, message):
    assert message in refused("pipeline.search", *typed)
    assert list(workspace.iterdir()) == [workspace / "params.yaml"]
