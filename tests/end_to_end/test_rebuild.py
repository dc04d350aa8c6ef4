"""`dvc repro` as typed: what it makes, what it makes anew, and what a kill does to it."""

import json
import os
import re
import shutil
import signal
import sqlite3
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

ROOT = Path(__file__).parents[2]
RUNS = OmegaConf.load(ROOT / "params.yaml").runs
pytestmark = pytest.mark.slow
STAGES = ["fetch", "preprocess", "likelihood", "train", "evaluate", "compare", "track"]


def ran(output):
    return re.findall(r"Running stage '([^']+)'", output)


def test_every_stage_runs_once(rebuilt):
    per_run = [f"{stage}@{run}" for stage in ("train", "evaluate") for run in RUNS]
    assert sorted(ran(rebuilt.output)) == sorted(
        ["fetch", "preprocess", "likelihood", "compare", "track", *per_run]
    )
    assert re.search(r"the best is run \d \(\w+\)", rebuilt.output)
    assert f"\nstage 1 of {5 + 2 * len(RUNS)}\n" in rebuilt.output


def test_nothing_that_looks_like_a_fault_is_printed(rebuilt):
    assert not re.search(r"^E0000|XNNPACK|Traceback", rebuilt.output, re.MULTILINE)


def test_all_results_are_there(rebuilt):
    metrics = json.loads(rebuilt.read("reports/metrics.json"))
    assert metrics["val_accuracy"] > 0.9
    comparison = json.loads(rebuilt.read("reports/comparison.json"))
    assert set(comparison["runs"]) == {f"{run}" for run in RUNS}
    assert metrics["run"] == comparison["best"]
    assert "<html" in rebuilt.read("reports/index.html")
    champion = json.loads(rebuilt.read("models/champion/model.json"))
    assert champion["metrics"]["test_accuracy"] == metrics["test_accuracy"]


def test_git_sees_figures_and_no_more(rebuilt):
    tracked = set(rebuilt.run("git", "ls-files").split())
    assert {"dvc.lock", "reports/metrics.json", "reports/comparison.json"} <= tracked
    assert not [
        name
        for name in tracked
        if name.startswith(("data/raw", "data/processed", "models/", "mlruns", ".ch"))
    ]
    assert rebuilt.run("git", "status", "--porcelain") == ""


def test_with_nothing_to_do_it_does_nothing(rebuilt):
    assert ran(rebuilt.run("dvc", "repro")) == []
    assert "up to date" in rebuilt.run("dvc", "status")


def test_mlflow_and_dvc_show_the_same_numbers(rebuilt):
    shown = json.loads(rebuilt.run("dvc", "metrics", "show", "--json"))
    figures = shown[""]["data"]["reports/metrics.json"]["data"]
    with sqlite3.connect(rebuilt.folder / "mlflow.db") as store:
        logged = dict(
            store.execute(
                "select l.key, l.value from latest_metrics l join params p using (run_uuid)"
                " where p.key = 'run' and p.value = ?",
                (str(figures["run"]),),
            )
        )
        runs = store.execute("select name, status from runs order by name").fetchall()
    names = {run: OmegaConf.load(ROOT / f"conf/run/{run}.yaml").name for run in RUNS}
    assert runs == [(f"run-{run}-{name}", "FINISHED") for run, name in names.items()]
    for name in set(figures) - {"run"}:
        assert logged[name] == figures[name], name


def test_editing_one_run_concerns_that_run_alone(clone):
    clone.edit("conf/run/3.yaml", "batch_size: 128", "batch_size: 64")
    assert list(json.loads(clone.run("dvc", "status", "--json"))) == ["train@3"]


def test_editing_one_run_retrains_that_run_alone_and_dvc_shows_the_difference(clone):
    clone.edit("conf/run/1.yaml", "epochs: 5", "epochs: 6")
    before = {run: clone.read(f"models/runs/{run}/model.json") for run in RUNS}
    assert ran(clone.run("dvc", "repro")) == ["train@1", "evaluate@1", "compare", "track"]
    after = {run: clone.read(f"models/runs/{run}/model.json") for run in RUNS}
    assert {run for run in RUNS if before[run] != after[run]} == {1}
    assert json.loads(after[1])["settings"]["epochs"] == 6

    clone.pick("runs", "[1]")  # so that the metrics are its own
    assert ran(clone.run("dvc", "repro")) == ["compare", "track"]
    difference = clone.run("dvc", "metrics", "diff")
    assert "val_accuracy" in difference
    assert "parameters" in difference
    clone.run("dvc", "plots", "show", "--out", "plots")
    page = clone.read("plots/index.html")
    assert "vega" in page.lower()
    assert "samples.png" in page


def test_two_clean_rebuilds_are_the_same_to_the_byte(clone):
    recorded = clone.read("dvc.lock")
    for folder in (
        ".dvc/cache",
        "data/raw",
        "data/processed",
        "data/nondigits",
        "models",
        "mlartifacts",
    ):
        shutil.rmtree(clone.folder / folder)
    for file in ("dvc.lock", "mlflow.db"):
        (clone.folder / file).unlink()
    clone.run("dvc", "repro")
    assert clone.read("dvc.lock") == recorded
    assert clone.run("git", "status", "--porcelain") == ""


@pytest.mark.nightly
def test_an_experiment_leaves_the_workspace_alone(clone):
    before = {p: p.read_bytes() for p in (clone.folder / "reports").rglob("*") if p.is_file()}
    clone.run("dvc", "exp", "run", "--temp", "--name", "seven", "-S", "seed=7", "-S", "runs=[1]")
    after = {p: p.read_bytes() for p in (clone.folder / "reports").rglob("*") if p.is_file()}
    assert after == before
    assert clone.run("git", "status", "--porcelain") == ""
    assert "seven" in clone.run("dvc", "exp", "show", "--csv")
    with sqlite3.connect(clone.folder / "mlflow.db") as store:
        tags = store.execute("select value from tags where key = 'DVC_EXP_NAME'").fetchall()
    assert tags == [("seven",)]


def logging_now(clone):
    """MLflow has a run that is being filled."""
    with sqlite3.connect(f"file:{clone.folder / 'mlflow.db'}?mode=ro", uri=True) as store:
        return store.execute("select 1 from runs where status = 'RUNNING'").fetchone()


# What tells that a stage is in the middle of its work. `fetch` and `preprocess` are too quick on
# these images to be met there, and `likelihood` leaves no trace before it ends: they are
# killed as soon as they run (tests/pipeline/test_fetch.py kills a download half way).
AT_WORK = {
    "fetch": lambda clone: True,
    "preprocess": lambda clone: True,
    "likelihood": lambda clone: True,
    "train": lambda clone: list((clone.folder / ".checkpoints").glob("*/history.json")),
    "evaluate": lambda clone: (clone.folder / "reports/evaluate/3/predictions.npz").exists(),
    "compare": lambda clone: (clone.folder / "reports/compare/curves.csv").exists(),
    "track": logging_now,
}


def lose(clone, stage):
    """Takes the stage's outputs away, from DVC's caches too, so that it must run again."""
    recorded = OmegaConf.load(clone.folder / "dvc.lock").stages[stage]
    shutil.rmtree(clone.folder / ".dvc/cache/runs")
    for out in recorded.outs:
        path = clone.folder / out.path
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        (clone.folder / ".dvc/cache/files/md5" / out.md5[:2] / out.md5[2:]).unlink(missing_ok=True)


_BY_NIGHT = set(STAGES) - {"train", "track"}  # two that are surely met in the middle of their work


@pytest.mark.parametrize(
    "stage",
    [pytest.param(each, marks=pytest.mark.nightly if each in _BY_NIGHT else ()) for each in STAGES],
)
def test_a_stage_that_is_killed_is_made_good_by_the_next_repro(clone, stage):
    recorded = clone.read("dvc.lock")
    name = f"{stage}@3" if stage in ("train", "evaluate") else stage
    lose(clone, name)
    if stage == "track":
        for path in (clone.folder / "mlflow.db", *(clone.folder / "mlartifacts").iterdir()):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        clone.run(
            "python", "-c", "from pipeline.registry import mlflow_runs; mlflow_runs.connect()"
        )
    repro = clone.start("dvc", "repro", "--force", "--single-item", name)
    kill(stage, clone)
    output, _ = repro.communicate(timeout=120)
    assert repro.returncode != 0, output

    again = clone.run("dvc", "repro")
    # A training shows itself on the page of the comparison, which must then be written again.
    assert ran(again) == ([name, "compare"] if stage == "train" else [name])
    assert clone.read("dvc.lock") == recorded
    assert clone.run("git", "status", "--porcelain") == ""
    if stage == "train":
        assert "resumes after epoch" in again


def kill(stage, clone):
    """`kill -9` of the stage's own process in this clone, once it is at work."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
                here = (process / "cwd").readlink() == clone.folder
            except OSError:
                continue
            ours = here and words[1:3] == [b"-m", f"pipeline.{stage}".encode()]
            if ours and AT_WORK[stage](clone):
                os.kill(int(process.name), signal.SIGKILL)
                return
        time.sleep(0.01)
    raise AssertionError(f"pipeline.{stage} was never seen at work")
