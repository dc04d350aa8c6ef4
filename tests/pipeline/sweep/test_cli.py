import os
import re
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from support import sweep_repo

from pipeline.config import CONF, PipelineError
from pipeline.jobs import processes
from pipeline.registry import mlflow_runs
from pipeline.sweep import cli
from pipeline.sweep import job as sweep_job
from pipeline.sweep.job import State

ROOT = CONF.parent
# In place of `pipeline.track`: notes for which job of which sweep it was called.
TRACK = """\
import os, pathlib
line = os.environ["SWEEP_PARENT"] + " " + os.environ["DVC_EXP_NAME"]
with pathlib.Path(os.environ["DVC_ROOT"], "logs", "tracked").open("a") as notes:
    print(line, file=notes)
"""


@pytest.fixture
def repository(workspace, empty_store, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_store, workspace / "mlflow.db")
    before = signal.getsignal(signal.SIGTERM)
    yield sweep_repo.Repository(workspace)
    signal.signal(signal.SIGTERM, before)


def train(folder, *typed, program=(str(ROOT / "train.py"),)):
    """`python train.py <typed>` in `folder`, or another program."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DVC_", "MLFLOW_", "SWEEP_", "FORCE_COLOR", "TTY_"))
    }
    return subprocess.run(
        [sys.executable, *program, *typed],
        cwd=folder,
        env=inherited | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def swept(tmp_path_factory, empty_store):
    """What a sweep leaves of which one job raises and one is killed."""
    folder = tmp_path_factory.mktemp("swept")
    with sweep_repo.inside(folder) as repository, pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        shutil.copy(empty_store, folder / "mlflow.db")
        (folder / "pipeline").mkdir()
        (folder / "pipeline" / "__init__.py").touch()
        (folder / "pipeline" / "track.py").write_text(TRACK)
        repository.with_dvc()
        (folder / "README.md").write_text("untracked")
        done = train(folder, "-m", "run=3", "data=digits", "epochs=3,40,41,4")
        client = mlflow_runs.connect()
        place = client.get_experiment_by_name("digits").experiment_id
        runs = client.search_runs([place])
        (parent,) = (run for run in runs if mlflow_runs.PARENT not in run.data.tags)
        children = [run for run in runs if mlflow_runs.PARENT in run.data.tags]
        yield SimpleNamespace(
            folder=folder, repository=repository, done=done, parent=parent, children=children
        )


def test_a_sweep_goes_on_after_a_failure_and_fails_at_the_end(swept):
    assert swept.done.returncode == 1, swept.done.stderr
    lines = swept.done.stdout.splitlines()
    assert lines[0] == "not in Git, so not part of the experiments: README.md"
    ends = [line.partition(": ")[::2] for line in lines if re.match(r"\[\d/4\]", line)]
    assert [title for title, _ in ends] == [
        f"[{number}/4] run 3 data=digits epochs={epochs}"
        for number, epochs in ((1, 3), (2, 40), (3, 41), (4, 4))
        for _ in ("starts", "ends")
    ]
    assert re.fullmatch(r"done in \d+ s, validation accuracy 90\.30 %", ends[1][1])
    assert re.fullmatch(r"failed after \d+ s: ValueError: the kernel does not fit", ends[3][1])
    assert "all was killed by SIGKILL, perhaps because memory ran out" in ends[5][1]


def test_its_table_and_what_to_type_next(swept):
    found = swept.repository.git("for-each-ref", "--format=%(refname:lstrip=4)", "refs/exps")
    names = re.findall(r"^run3-\S+$", found, re.M)
    best, worse = sorted(names, key=lambda name: "epochs=4" not in name)
    table = swept.done.stdout.partition("\nname  ")[2].splitlines()
    assert table[1].split()[:2] == [best, "90.40"]
    assert table[2].split()[:2] == [worse, "90.30"]
    assert table[3].startswith("run 3 data=digits epochs=40 failed")
    log = table[4].strip()
    assert "the kernel does not fit" in (swept.folder / log).read_text()
    assert table[5].startswith("run 3 data=digits epochs=41 failed")
    assert f"python -m pipeline.adopt {best} " in swept.done.stdout
    assert swept.done.stdout.endswith("  mlflow ui --backend-store-uri sqlite:///mlflow.db\n")


def test_mlflow_has_the_sweep_and_what_failed(swept):
    parent = swept.parent
    assert parent.info.run_name == "sweep run=3 data=digits epochs=3,40,41,4"
    assert parent.data.tags["command"] == "python train.py -m run=3 data=digits epochs=3,40,41,4"
    assert parent.info.status == "FAILED"
    assert parent.data.metrics["val_accuracy"] == 0.904
    assert [child.info.status for child in swept.children] == ["FAILED"] * 2
    assert {child.data.tags[mlflow_runs.PARENT] for child in swept.children} == {parent.info.run_id}
    errors = sorted(child.data.tags["error"] for child in swept.children)
    assert errors[0] == "ValueError: the kernel does not fit"
    assert errors[1].startswith("all was killed by SIGKILL")
    # Models that MLflow lacks are logged under the sweep.
    notes = (swept.folder / "logs" / "tracked").read_text().splitlines()
    assert [note.split("-data")[0] for note in notes] == [f"{parent.info.run_id} run3"] * 2
    assert ["epochs=3" in note for note in notes] == [True, False]


def test_a_misspelt_setting_ends_it_before_anything_is_made(workspace):
    repository = sweep_repo.Repository(workspace)
    done = train(workspace, "-m", "run=1,2", "epoch=3")
    assert done.returncode == 1
    assert done.stderr == "error: no run has the setting epoch; did you mean epochs?\n"
    assert done.stdout == ""
    assert repository.git("status", "--porcelain", "--ignored") == "!! .checkpoints/"


# `job.run` as DVC starts an experiment, at its worst: files of the workspace vanish.
VANISH = """\
from pathlib import Path
from pipeline import config
from pipeline.sweep import cli, job

config.CONF = cli.CONF = Path("conf").absolute()

def run(one, folder, parent):
    print("job", bool(parent), one.label or one.run, flush=True)
    if parent:
        for file in config.CONF.glob("run/*.yaml"):
            file.unlink()

job.run = run
cli.main(["epochs=9", "run=3", "epochs=5", "optimizer.learning_rate=1e-3"])
cli.main(["-m", "run=1,2,3"])
"""


def test_hydra_runs_each_job_whatever_dvc_does_to_the_workspace(repository):
    done = train(repository.folder, program=("-c", VANISH))
    ran = [line for line in done.stdout.splitlines() if line.startswith("job ")]
    alone = "job False epochs=5 learning_rate=0.001"  # which typed 1e-3
    assert ran == [alone, "job True 1", "job True 2", "job True 3"], done.stderr


def test_help_lists_the_settings(workspace):
    done = train(workspace, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("python train.py ")
    assert "python train.py -m run=1,2,3" in done.stdout
    assert "run: 1, 2, 3" in done.stdout
    assert f"learning_rate: {float(sweep_repo.conf(1, 'optimizer.learning_rate'))}" in done.stdout
    assert not (workspace / "logs").exists()


def test_cfg_prints_the_configuration_of_each_job(repository):
    done = train(repository.folder, "-m", "run=1,2", "--cfg", "job", "epochs=7")
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^# run (\d) epochs=7$", done.stdout, re.M) == ["1", "2"]
    assert re.findall(r"^epochs: (\d+)$", done.stdout, re.M) == ["7", "7"]
    assert not (repository.folder / "logs").exists()


class Launched:
    """In place of Hydra: notes what it is called with, and does as `then` does."""

    def __init__(self):
        self.arguments, self.then = [], lambda: None

    def __call__(self, arguments, _):
        self.arguments = arguments
        self.then()

    def folder(self):
        given = dict(a.split("=", 1) for a in self.arguments if a.startswith("hydra."))
        assert given["hydra.sweep.subdir"] == "."
        assert given["hydra.sweep.dir"] == given["hydra.run.dir"]
        return cli.Path(given["hydra.sweep.dir"])


@pytest.fixture
def launched(monkeypatch):
    noted = Launched()
    monkeypatch.setattr(cli, "_hydra", noted)
    return noted


def parents():
    client = mlflow_runs.connect()
    place = client.get_experiment_by_name("mnist")
    return client.search_runs([place.experiment_id]) if place else []


RAY = {"+hydra.launcher.ray.remote.num_cpus": "2"}
RAY_MEMORY = {"+hydra.launcher.ray.init.object_store_memory": "null"}


@pytest.mark.parametrize(
    ("typed", "threads", "settings"),
    [
        ("", [2], {}),
        ("hydra/launcher=joblib", [2], {"hydra.launcher.n_jobs": "4"}),
        ("hydra/launcher=joblib", [1, 3], {"hydra.launcher.n_jobs": "2"}),
        ("hydra/launcher=joblib", [16], {"hydra.launcher.n_jobs": "1"}),
        ("hydra/launcher=joblib hydra.launcher.n_jobs=3", [2], {}),
        ("hydra/launcher=ray", [2], RAY | RAY_MEMORY),
        ("hydra/launcher=ray +hydra.launcher.ray.remote.num_cpus=1", [2], RAY_MEMORY),
        ("hydra/launcher=submitit_local", [2], {"hydra.launcher.cpus_per_task": "2"}),
        ("hydra/launcher=submitit_slurm hydra.launcher.cpus_per_task=9", [2], {}),
    ],
)
def test_a_launcher_learns_how_many_threads_a_job_takes(monkeypatch, typed, threads, settings):
    monkeypatch.setattr(cli.joblib, "cpu_count", lambda: 8)
    found = [SimpleNamespace(threads=each) for each in threads]
    added = cli._launcher_settings(typed.split(), found)
    assert dict(argument.split("=") for argument in added) == settings


def test_launchers_that_are_configured_are_installed():
    """Each setting that is passed to them is one that they know."""
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

    Plugins.instance()
    store = ConfigStore.instance()
    known = {"joblib": "n_jobs", "ray": "ray"}
    known |= dict.fromkeys(("submitit_local", "submitit_slurm"), "cpus_per_task")
    for launcher, setting in known.items():
        assert setting in store.load(f"hydra/launcher/{launcher}.yaml").node


def test_jobs_that_no_launcher_began_fail_the_sweep(repository, launched, capsys):
    client = mlflow_runs.connect()
    tags = {"sweep.folder": "gone", "sweep.host": sweep_job.HOST}
    place = mlflow_runs.experiment(client, "digits")
    crashed = client.create_run(place, run_name="sweep run=7", tags=tags).info.run_id
    launched.then = sys.exit  # as a launcher that gives up
    assert cli.main(["-m", "run=1,2"]) == 1
    shown = capsys.readouterr().out
    assert "MLflow: sweep run=7 was left running by a crash" in shown
    assert client.get_run(crashed).info.status == "KILLED"
    assert "run 1 did not begin\nrun 2 did not begin\n" in shown
    assert "repeat the command" in shown
    assert "\n  mlflow ui --backend-store-uri sqlite:///mlflow.db" in shown
    assert launched.arguments[:2] == ["-m", "run='1','2'"]
    assert [parent.info.status for parent in parents()] == ["FAILED"]


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_who_asks_it_to_stop_is_obeyed(repository, launched, capsys, asked):
    def stop():
        os.kill(os.getpid(), asked)
        time.sleep(60)

    launched.then = stop
    assert cli.main(["-m", "run=1,2"]) == 130
    assert [parent.info.status for parent in parents()] == ["KILLED"]
    assert "run 2 did not begin" in capsys.readouterr().out


def test_what_a_lost_worker_was_at_is_ended(repository, launched, capsys):
    left = subprocess.Popen(["sleep", "600"], start_new_session=True)

    def lose_worker():
        (job, _) = sweep_repo.jobs("run=1,2")
        sweep_job.write(
            launched.folder(), job, State("running", time.time(), sweep_job.HOST, left.pid)
        )

    launched.then = lose_worker
    with left:
        try:
            assert cli.main(["-m", "run=1,2"]) == 1
            assert not processes.is_alive(left.pid)
        finally:
            left.kill()
    assert "run 1 stopped after 0 s: its worker ended" in capsys.readouterr().out
    child, parent = sorted(parents(), key=lambda run: run.info.run_name)
    assert (child.info.status, parent.info.status) == ("KILLED", "FAILED")
    assert child.data.tags[mlflow_runs.PARENT] == parent.info.run_id


def test_what_mlflow_refuses_costs_no_table(repository, launched, capsys, monkeypatch):
    def finish():
        for job in sweep_repo.jobs("run=1,2"):
            made = State("done", 0.0, experiment=job.name, val_accuracy=0.9, val_loss=0.1)
            sweep_job.write(launched.folder(), job, made)

    def refuse(*_):
        raise PipelineError("the disk is full")

    launched.then = finish
    monkeypatch.setattr(cli.mlflow_record, "complete", refuse)
    assert cli.main(["-m", "run=1,2"]) == 1
    shown = capsys.readouterr().out
    assert shown.count("error: the disk is full") == 2
    assert shown.partition("\nname ")[2].count(" 90.00 ") == 2
    assert [parent.info.status for parent in parents()] == ["FINISHED"]


def test_a_job_alone_makes_no_parent_and_names_the_server(
    repository, launched, monkeypatch, capsys
):
    client = mlflow_runs.connect()
    monkeypatch.setattr(mlflow_runs, "connect", lambda: client)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    cli.main(["run=1"])
    assert capsys.readouterr().out.endswith("\n  http://mlflow:5000\n")
    assert client.get_experiment_by_name("mnist") is None


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("run=1,2 epochs=3", r"several values need a sweep: python train.py -m run=1,2 epochs=3"),
        ("-m runs=[1,2]", "a job trains one run"),
        ("-cn=other run=1", "-cn=other: only -m (a sweep), --help, --cfg and --info are known"),
        ("--run run=1", "--run: only -m"),
    ],
)
def test_what_it_refuses_leaves_no_trace(repository, launched, typed, why):
    with pytest.raises(PipelineError, match=re.escape(why)):
        cli.main(typed.split())
    assert launched.arguments == []
    assert not (repository.folder / "logs").exists()


def test_without_git_or_a_commit_it_says_what_works_without(workspace, launched):
    for _ in range(2):
        with pytest.raises(PipelineError, match=r"Git repository(.|\n)*python -m pipeline.train"):
            cli.main(["run=1"])
        subprocess.run(["git", "init", "-q"], cwd=workspace, check=True)


def test_a_run_or_data_set_that_git_does_not_track_is_refused(repository):
    found = [SimpleNamespace(run=1, data="mnist"), SimpleNamespace(run=3, data="digits")]
    cli._require_tracked(found)
    for file in ("conf/run/3.yaml", "conf/data/digits.yaml"):
        repository.git("rm", "-q", "--cached", file)
        with pytest.raises(PipelineError, match=f"git add {file}"):
            cli._require_tracked(found)
        repository.git("reset", "-q")


def test_what_experiments_see_is_said_first(repository, capsys):
    cli.show_uncommitted()
    assert capsys.readouterr().out == ""
    repository.edit("params.yaml", "seed", 43)
    repository.edit("conf/run/1.yaml", "epochs", 97)
    repository.git("add", "conf")
    (repository.folder / "notes").mkdir()
    (repository.folder / "notes" / "one.txt").touch()
    (repository.folder / "new.py").touch()
    cli.show_uncommitted()
    assert capsys.readouterr().out.splitlines() == [
        "not committed, but part of the experiments: conf/run/1.yaml, params.yaml",
        "not in Git, so not part of the experiments: new.py, notes/",
    ]
