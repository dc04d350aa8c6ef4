"""`python train.py …` as typed: what it makes and shows, on one core or several machines.

The tests of one clone come one after the other, each from where the last left it; a fixture for
each step makes that any of them can be run alone.
"""

import csv
import io
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import chdir, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.clones import copied
from support.processes import until

from pipeline.config import paths
from pipeline.storage import dvc_experiments, files

pytestmark = pytest.mark.slow

SWEEP = ["-m", "run=1,2,3", "data=digits", "epochs=1"]
SEEDS = ["-m", "run=3", "epochs=1", "seed=1,2", "threads=1", "data=digits"]


@contextmanager
def started(clone, *typed, **environment):
    """`python train.py <typed>` as a shell starts it: a process group of its own."""
    with subprocess.Popen(
        ["python", "train.py", *typed],
        cwd=clone.folder,
        env={**clone.environment, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def processes(clone):
    """Those that work in the clone: number and command line."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            here = (process / "cwd").readlink().is_relative_to(clone.folder)
            words = (process / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if here and any(words):
            found[int(process.name)] = words
    return found


def training(clone):
    """The process that trains; 0 if there is none."""
    found = processes(clone).items()
    return next((pid for pid, words in found if words[1:3] == ["-m", "pipeline.train"]), 0)


def jobs(clone):
    """The last sweep's jobs: what was typed for each, its state and its log."""
    folder = max((clone.folder / "logs" / "sweeps").iterdir())
    found = []
    for job in json.loads((folder / "sweep.json").read_bytes())["jobs"]:
        (state,) = folder.glob(f"run{job['run']}-*{job['digest']}.json")
        found.append(
            SimpleNamespace(
                run=job["run"],
                typed=job["typed"],
                log=state.with_suffix(".log"),
                **json.loads(state.read_bytes()),
            )
        )
    return found


def names(clone):
    """DVC's experiments."""
    return clone.run("dvc", "exp", "list", "--names-only").split()


def mlflow_runs(clone):
    """All runs, the oldest first."""
    with sqlite3.connect(clone.folder / "mlflow.db") as store:
        rows = store.execute("select run_uuid, name, status from runs order by start_time")
        found = [SimpleNamespace(id=i, name=name, status=status) for i, name, status in rows]
        for run in found:
            asked = ("select key, value from {} where run_uuid = ?", (run.id,))
            run.tags = dict(store.execute(asked[0].format("tags"), asked[1]))
            run.metrics = dict(store.execute(asked[0].format("latest_metrics"), asked[1]))
            run.parent = run.tags.get("mlflow.parentRunId")
    return found


def sweep_runs(clone, command):
    """The run of the sweep with that command line, and its children."""
    found = mlflow_runs(clone)
    (parent,) = (run for run in found if run.tags.get("command") == f"python train.py {command}")
    return parent, [run for run in found if run.parent == parent.id]


def weights(clone, folder):
    """SHA-256 of the weights of each job of the last sweep, by seed."""
    found = {}
    for job in jobs(clone):
        assert job.state == "done"
        place = folder / str(job.typed["seed"])
        with chdir(clone.folder):
            made = dvc_experiments.find(job.experiment)
            dvc_experiments.checkout(made, place, paths.model(3) / "model.weights.h5")
        found[job.typed["seed"]] = files.sha256(place / paths.model(3) / "model.weights.h5")
    return found


@pytest.fixture(scope="module")
def alone(module_clone, tmp_path_factory):
    """A clone with what comes before the runs, for both seeds, in DVC's cache.

    So no sweep of these seeds makes it again.
    """
    clone = copied(module_clone, tmp_path_factory.mktemp("alone"))
    recorded = clone.read("params.yaml")
    for seed in (1, 2):
        picked(clone, recorded, seed)
        clone.run("dvc", "repro", "likelihood")
    shutil.rmtree(clone.folder / "models")
    (clone.folder / "params.yaml").write_text(recorded)
    clone.commit("what both seeds begin with is known")
    return clone


def picked(clone, recorded, seed):
    """Picks what the jobs of `SEEDS` have."""
    (clone.folder / "params.yaml").write_text(recorded)
    clone.pick("data", "digits")
    clone.edit("params.yaml", "seed: 42", f"seed: {seed} ")
    clone.pick("threads", 1)


@pytest.fixture(scope="module")
def weights_alone(alone, tmp_path_factory):
    """Each seed's weights without DVC."""
    clone, found = copied(alone, tmp_path_factory.mktemp("weights_alone")), {}
    recorded = clone.read("params.yaml")
    for seed in (1, 2):
        picked(clone, recorded, seed)
        clone.run("dvc", "repro", "likelihood")
        clone.run("python", "-m", "pipeline.train", "run=3", "epochs=1", "threads=1")
        found[seed] = files.sha256(clone.folder / paths.model(3) / "model.weights.h5")
    assert found[1] != found[2]
    return found


@pytest.fixture(scope="module")
def workshop(alone, tmp_path_factory):
    """The same with an uncommitted change and an untracked file."""
    clone = copied(alone, tmp_path_factory.mktemp("workshop"))
    clone.edit("README.md", "# ", "# My ")
    (clone.folder / "notes.txt").write_text("mine")
    clone.before = clone.run("git", "status", "--porcelain")
    return clone


@pytest.fixture(scope="module")
def lone(workshop):
    """After a job alone, where the environment is not activated."""
    python = Path(sys.executable).parent / "python"
    command = [str(python), "train.py", "run=3", "epochs=1", "seed=1", "threads=1", "data=digits"]
    workshop.lone = workshop.run(*command, PATH=f"{Path(shutil.which('git')).parent}:/usr/bin:/bin")
    (workshop.only,) = mlflow_runs(workshop)
    return workshop


@pytest.fixture(scope="module")
def swept(lone):
    """After a sweep."""
    lone.swept = lone.run("python", "train.py", *SWEEP)
    lone.results = {job.run: job for job in jobs(lone)}
    return lone


@pytest.fixture(scope="module")
def interrupted(swept):
    """After Ctrl-C in the second job of a sweep; the first was made alone before."""
    with started(swept, *SEEDS) as process:
        until(lambda: training(swept), "training")
        os.killpg(process.pid, signal.SIGINT)
        swept.interrupted, _ = process.communicate(timeout=120)
    swept.left = processes(swept)
    swept.interrupted_code, swept.interrupted_jobs = process.returncode, jobs(swept)
    swept.interrupted_parent, swept.interrupted_children = sweep_runs(swept, " ".join(SEEDS))
    return swept


@pytest.fixture(scope="module")
def orphaned(interrupted):
    """After `kill -9` of the same sweep, and its next start."""
    clone = interrupted
    with started(clone, *SEEDS) as process:
        orphan = until(lambda: training(clone), "training")
        process.kill()
        process.wait()
        assert training(clone) == orphan
    clone.killed_parent, _ = sweep_runs(clone, " ".join(SEEDS))
    clone.orphaned = clone.run("python", "train.py", *SEEDS)
    clone.orphaned_parent, clone.orphaned_children = sweep_runs(clone, " ".join(SEEDS))
    return clone


def test_a_job_alone_needs_no_activated_environment_and_has_no_parent(lone):
    settings = "epochs=1 seed=1 threads=1 data=digits"
    assert f"[1/1] run 3 {settings}: done in" in lone.lone
    assert (lone.only.status, lone.only.name) == ("FINISHED", f"run-3-optimized {settings}")
    assert lone.only.parent is None


def test_a_sweep_leaves_a_row_for_each_job_with_the_same_columns_filled(swept):
    shown = swept.run("dvc", "exp", "show", "--csv")
    rows = list(csv.DictReader(io.StringIO(shown[shown.index("Experiment") :])))
    ours = {r["Experiment"]: r for r in rows if r["Experiment"].startswith("run")}
    found = [ours[job.experiment] for job in swept.results.values()]
    for run in ("reports/metrics.json:run", "reports/best.yaml:run"):
        assert [row[run] for row in found] == ["1", "2", "3"]
    # Other columns with a `/` are hashes of files, at the far right.
    filled = [{name for name, value in row.items() if value and "/" not in name} for row in found]
    assert filled[0] == filled[1] == filled[2]
    assert {"val_accuracy", "test_accuracy", "optimizer.learning_rate", "epochs"} <= filled[0]
    for row, job in zip(found, swept.results.values(), strict=True):
        assert float(row["val_accuracy"]) == job.val_accuracy
        assert (row["epochs"], row["data"]) == ("1", "digits")


def test_a_sweep_is_one_parent_with_a_child_for_each_job(swept):
    parent, children = sweep_runs(swept, " ".join(SWEEP))
    assert parent.name == "sweep run=1,2,3 data=digits epochs=1"
    assert sorted(child.name for child in children) == [
        "run-1-baseline data=digits epochs=1",
        "run-2-enhanced data=digits epochs=1",
        "run-3-optimized data=digits epochs=1",
    ]
    assert {run.status for run in (parent, *children)} == {"FINISHED"}
    logged = {child.name[4]: child.metrics["val_accuracy"] for child in children}
    assert logged == {str(run): job.val_accuracy for run, job in swept.results.items()}
    assert parent.metrics["val_accuracy"] == max(logged.values())


def test_a_sweep_leaves_the_workspace_as_it_was(swept):
    assert swept.run("git", "status", "--porcelain") == swept.before
    assert swept.run("git", "stash", "list") == ""
    assert not (swept.folder / "models").exists()
    assert processes(swept) == {}


def test_repeating_trains_nothing_and_adds_nothing(swept):
    before, listed = mlflow_runs(swept), names(swept)
    again = swept.run("python", "train.py", *SWEEP)
    assert again.count("was done before") == 3
    assert [(job.state, job.reused, job.log.exists()) for job in jobs(swept)] == [
        ("done", True, False)
    ] * 3
    assert names(swept) == listed
    assert [(run.id, run.status) for run in mlflow_runs(swept)] == [
        (run.id, run.status) for run in before
    ]


def test_adopted_settings_rebuild_the_same_models_from_the_cache(swept, tmp_path):
    clone = copied(swept, tmp_path)
    clone.run("git", "checkout", "-q", ".")
    clone.pick("data", "digits")
    for run, job in swept.results.items():
        shown = clone.run("python", "-m", "pipeline.adopt", job.experiment)
        assert "+epochs: 1" in shown
        assert f"dvc repro   builds run {run}" in shown
    changed = clone.run("git", "diff", "--name-only").split()
    assert changed == [*(f"conf/run/{run}.yaml" for run in (1, 2, 3)), "params.yaml"]
    rebuilt = clone.run("dvc", "repro")
    for run in swept.results:
        assert f"Stage 'train@{run}' is cached" in rebuilt
    assert "Running stage 'train@" not in rebuilt
    figures = json.loads(clone.read("reports/comparison.json"))["runs"]
    for run, job in swept.results.items():
        assert figures[str(run)]["val_accuracy"] == job.val_accuracy
        assert figures[str(run)]["val_loss"] == job.val_loss


def test_ctrl_c_ends_the_job_and_keeps_what_is_done(interrupted):
    assert interrupted.interrupted_code == 130, interrupted.interrupted
    first, second = interrupted.interrupted_jobs
    assert (first.state, first.reused) == ("done", True)
    assert second.state == "stopped"
    assert interrupted.left == {}
    assert first.experiment in names(interrupted)
    assert "run 3 epochs=1 seed=2 threads=1 data=digits stopped after" in interrupted.interrupted
    parent, children = interrupted.interrupted_parent, interrupted.interrupted_children
    assert parent.status == "KILLED"
    assert sorted(child.status for child in children) == ["FINISHED", "KILLED"]
    assert interrupted.run("git", "status", "--porcelain") == interrupted.before


def test_after_kill_9_the_next_start_marks_waits_and_takes_what_the_orphan_made(orphaned):
    assert orphaned.killed_parent.status == "RUNNING"
    said = f"MLflow: {orphaned.killed_parent.name} was left running by a crash"
    assert said in orphaned.orphaned
    first, second = jobs(orphaned)
    assert (first.reused, second.reused) == (True, True)
    assert not second.log.exists()
    assert len([name for name in names(orphaned) if "-seed=2-" in name]) == 1
    assert orphaned.orphaned_parent.id == orphaned.killed_parent.id
    assert orphaned.orphaned_parent.status == "FINISHED"
    finished = [run for run in orphaned.orphaned_children if run.status == "FINISHED"]
    assert sorted(run.tags["seed"] for run in finished) == ["1", "2"]
    assert processes(orphaned) == {}


def ray_node(environment, *options):
    """A node of one core on this machine, once it runs."""
    for _ in range(3):  # Ray gives a node 30 s to start, which few cores that others use may miss
        node = subprocess.Popen(
            ["ray", "start", "--block", "--num-cpus=1", *options],
            env={**environment, "RAY_AUTH_MODE": "disabled"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        said = ""
        for line in node.stdout:
            said += line
            if "Ray runtime started" in line:
                return node
        node.wait()
        with suppress(ProcessLookupError):
            os.killpg(node.pid, signal.SIGKILL)  # whatever it had started
        if "timed out during startup" not in said:
            break
    raise AssertionError(f"ray start ended:\n{said}")


@contextmanager
def ray_cluster(clone):
    """Two nodes; what tells where they are."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"127.0.0.1:{port}"
    folder = tempfile.mkdtemp(prefix="r", dir="/tmp")
    head = [f"--port={port}", "--head", "--include-dashboard=false", f"--temp-dir={folder}"]
    nodes = []
    try:
        for options in ([*head, "--disable-usage-stats"], [f"--address={address}"]):
            nodes.append(ray_node(clone.environment, *options))
        yield {"RAY_ADDRESS": address, "RAY_AUTH_MODE": "disabled"}
    finally:
        for node in reversed(nodes):
            node.terminate()
            node.communicate(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def raylets_at_work(clone):
    """The nodes' processes whose workers run jobs of the clone now."""
    found = set()
    for pid, words in processes(clone).items():
        if words[1:5] == ["-m", "dvc", "exp", "run"]:
            try:
                found.add(parent_of(parent_of(pid)))
            except OSError:
                continue
    return found


@pytest.mark.nightly
def test_seeds_one_after_the_other_give_the_weights_of_each_alone(
    orphaned, weights_alone, tmp_path
):
    assert weights(orphaned, tmp_path) == weights_alone


@pytest.mark.nightly
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_seeds_on_several_cores_give_the_weights_of_each_alone(
    alone, weights_alone, tmp_path, launcher
):
    clone = copied(alone, tmp_path)
    clone.run("python", "train.py", *SEEDS, f"hydra/launcher={launcher}")
    assert weights(clone, tmp_path) == weights_alone
    parent, children = sweep_runs(clone, " ".join([*SEEDS, f"hydra/launcher={launcher}"]))
    assert [run.status for run in (parent, *children)] == ["FINISHED"] * 3
    assert processes(clone) == {}


@pytest.mark.nightly
def test_seeds_on_two_nodes_give_the_weights_of_each_alone(alone, weights_alone, tmp_path):
    clone = copied(alone, tmp_path)
    with (
        ray_cluster(clone) as cluster,
        started(clone, *SEEDS, "hydra/launcher=ray", **cluster) as process,
    ):
        at_work = until(
            lambda: (len(now := raylets_at_work(clone)) == 2 and now) or process.poll() is not None,
            "two jobs at once",
        )
        output, _ = process.communicate(timeout=600)
    assert at_work is not True, output
    assert process.returncode == 0, output
    assert weights(clone, tmp_path) == weights_alone
    _, children = sweep_runs(clone, " ".join([*SEEDS, "hydra/launcher=ray"]))
    assert [run.status for run in children] == ["FINISHED"] * 2


@pytest.fixture(scope="module")
def queued(alone, tmp_path_factory):
    """A clone in which DVC's own queue made a grid of four."""
    clone = copied(alone, tmp_path_factory.mktemp("queued"))
    grid = ["seed=1,2", "conf/run/1.yaml:epochs=1,2", "runs=[1]", "data=digits", "threads=1"]
    clone.run("dvc", "exp", "run", "--queue", *(word for s in grid for word in ("-S", s)))
    # Its workers stay behind with whatever they print to; now and then one never ends.
    with (tmp_path_factory.mktemp("queue") / "log").open("wb") as log:
        subprocess.run(
            ["dvc", "queue", "start", "-j", "2"],
            cwd=clone.folder,
            env=clone.environment,
            stdout=log,
            stderr=log,
            check=True,
        )
    try:
        until(lambda: len(refs(clone)) == 4 or not processes(clone), "four experiments", 600)
        until(lambda: "Running" not in queue_status(clone), "the end of the last")
        clone.status = queue_status(clone)
    finally:
        for pid in processes(clone):
            os.kill(pid, signal.SIGKILL)
    return clone


def queue_status(clone):
    return clone.run("dvc", "queue", "status")


def refs(clone):
    listed = clone.run("git", "for-each-ref", "--format=%(refname)", "refs/exps")
    return re.findall(r"^refs/exps/\w{2}/\w{38}/(.+)$", listed, re.M)


@pytest.mark.nightly
def test_four_queued_experiments_leave_four_runs_in_mlflow(queued):
    assert len(refs(queued)) == 4, queued.status
    assert queued.status.count("Success") == 4
    found = mlflow_runs(queued)
    assert [run.status for run in found] == ["FINISHED"] * 4
    assert {run.tags["DVC_EXP_NAME"] for run in found} == set(refs(queued))
    assert {run.parent for run in found} == {None}
    assert len({run.tags["seed"] for run in found}) == 2
    assert queued.run("git", "status", "--porcelain") == ""
