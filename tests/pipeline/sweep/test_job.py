import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from support import sweep_repo
from support.processes import is_running, until
from support.sweep_repo import conf, jobs

from pipeline import config
from pipeline.config import PipelineError
from pipeline.storage import dvc_experiments
from pipeline.sweep import job as sweep_job
from pipeline.sweep.job import State


def folder_for_logs(repository, name="now"):
    folder = repository.folder / "logs" / "sweeps" / name
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def repository(workspace):
    return sweep_repo.Repository(workspace)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A job of run 1, whose repository is gone."""
    with sweep_repo.inside(tmp_path_factory.mktemp("job")):
        (job,) = jobs("run=1")
    return job


class Made:
    """A job that two sweeps wanted at the same time, in a shell where nothing is activated."""

    def __init__(self, repository):
        self.repository = repository.with_dvc()
        self.repository.edit("conf/data/digits.yaml", "test", 361)
        (repository.folder / "untracked").write_text("stays")
        self.before = self.state()
        (self.job,) = jobs("run=3", "epochs=3", "seed=7", "data=digits")
        self.folders = [folder_for_logs(self.repository, name) for name in ("one", "two")]
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda where: sweep_job.run(self.job, where, "parent"), self.folders))
        self.states = [sweep_job.read(where, self.job) for where in self.folders]
        self.experiment = dvc_experiments.find(self.job.name)

    def state(self):
        status = self.repository.git("status", "--porcelain")
        tracked = self.repository.git("ls-files").splitlines()
        return status, {name: (self.repository.folder / name).read_bytes() for name in tracked}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    with sweep_repo.inside(folder) as repository, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{Path(shutil.which('git')).parent}:/usr/bin:/bin")
        patch.setattr(config, "CONF", folder / "conf")
        yield Made(repository)


def test_a_job_is_an_experiment_and_of_two_at_once_one_makes_it(made):
    assert [state.state for state in made.states] == ["done", "done"]
    assert sorted(state.reused for state in made.states) == [False, True]
    assert [e.name for e in dvc_experiments.of_head()] == [made.job.name]
    for state in made.states:
        assert state.experiment == made.job.name
        assert (state.val_accuracy, state.val_loss) == (0.903, 0.5)
        assert state.seconds > 0


def test_the_experiment_has_the_jobs_settings_and_what_was_not_committed(made):
    assert dvc_experiments.picks(made.experiment) == {
        "data": "digits",
        "runs": [3],
        "seed": 7,
        "threads": 2,
    }
    written = dvc_experiments.read(made.experiment, Path("conf/run/3.yaml")).decode()
    assert OmegaConf.create(written).epochs == 3
    comments = [line for line in written.splitlines() if line.startswith("#")]
    assert comments == [
        line
        for line in made.repository.git("show", "HEAD:conf/run/3.yaml").splitlines()
        if line.startswith("#")
    ]
    split = OmegaConf.create(
        dvc_experiments.read(made.experiment, Path("conf/data/digits.yaml")).decode()
    )
    assert split.split.test == 361


def test_the_workspace_stays_as_it_was(made):
    assert made.state() == made.before
    assert not (made.repository.folder / "models").exists()


def test_the_same_settings_are_not_made_twice(made):
    (same,) = jobs(
        "run=3", "seed=7", "epochs=3", "data=digits", f"batch_size={conf(3, 'batch_size')}"
    )
    assert same.name != made.job.name
    folder = folder_for_logs(made.repository, "again")
    sweep_job.run(same, folder, None)
    state = sweep_job.read(folder, same)
    assert (state.state, state.reused, state.experiment) == ("done", True, made.job.name)
    assert not sweep_job.log_of(folder, same).exists()
    (other,) = jobs("run=3", "seed=8", "epochs=3", "data=digits")
    assert sweep_job.existing(other) is None
    head = made.repository.git("rev-parse", "HEAD")
    made.repository.git("commit", "-q", "--allow-empty", "-m", "next")
    try:
        assert sweep_job.existing(made.job) is None, "it is of an older commit"
    finally:
        made.repository.git("reset", "-q", "--soft", head)


def test_an_experiment_with_the_digest_but_other_settings_is_refused(made):
    other = replace(made.job, typed=made.job.typed | {"seed": 8})
    with pytest.raises(PipelineError, match=r"has seed=7, not 8: remove it with dvc exp remove"):
        sweep_job.existing(other)


def test_its_outputs_are_given_to_track_with_its_place_in_mlflow(made):
    """`pipeline.track` is replaced by one that notes what it is given."""
    package = made.repository.folder / "pipeline"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "track.py").write_text(
        "import json, os, pathlib, sys\n"
        "names = 'SWEEP_PARENT', 'SWEEP_LABEL', 'DVC_EXP_NAME', 'DVC_EXP_BASELINE_REV'\n"
        "given = {name: os.environ[name] for name in names} | {'arguments': sys.argv[1:]}\n"
        "given['files'] = sorted(str(p) for p in pathlib.Path().rglob('*') if p.is_file())\n"
        "given['picks'] = pathlib.Path('params.yaml').read_text()\n"
        "pathlib.Path(os.environ['DVC_ROOT'], 'logs', 'given').write_text(json.dumps(given))\n",
    )
    sweep_job.track(made.job, made.experiment, "the parent")
    given = json.loads((made.repository.folder / "logs" / "given").read_bytes())
    assert given["SWEEP_PARENT"] == "the parent"
    assert given["SWEEP_LABEL"] == "epochs=3 seed=7 data=digits"
    assert given["DVC_EXP_NAME"] == made.job.name
    assert given["DVC_EXP_BASELINE_REV"] == made.repository.git("rev-parse", "HEAD")
    assert given["arguments"] == ["data=digits"]
    assert OmegaConf.create(given["picks"]).runs == [3]
    assert given["files"] == [
        "dvc.lock",
        "models/runs/3/made",
        "params.yaml",
        "reports/evaluate/3/made",
        "reports/train/3/made",
    ]

    (package / "track.py").write_text("import sys; sys.exit('error: no space left')")
    with pytest.raises(PipelineError, match=f"{re.escape(made.job.name)}.*no space left"):
        sweep_job.track(made.job, made.experiment, None)


def test_ctrl_c_ends_the_job_and_all_that_it_started(repository):
    repository.with_dvc()
    folder = folder_for_logs(repository)
    (job,) = jobs("run=1", "epochs=42")
    waits = repository.folder / "logs" / "waits"

    def press():
        until(waits.exists, "the stage")
        os.kill(os.getpid(), signal.SIGINT)

    presses = threading.Thread(target=press)
    presses.start()
    with pytest.raises(KeyboardInterrupt):
        sweep_job.run(job, folder, None)
    presses.join()
    state = sweep_job.read(folder, job)
    assert (state.state, state.experiment) == ("stopped", "")
    assert state.seconds > 0
    assert not is_running(int(waits.read_text()))
    assert dvc_experiments.every() == []
    # Its lock is free again.
    assert sweep_job.existing(job) is None
    with sweep_job._alone(job):
        pass


def test_a_stage_does_not_outlive_a_dvc_that_is_killed(repository):
    repository.with_dvc()
    folder = folder_for_logs(repository)
    (job,) = jobs("run=1", "epochs=42")
    waits = repository.folder / "logs" / "waits"
    thread = threading.Thread(target=sweep_job.run, args=(job, folder, None))
    thread.start()
    until(waits.exists, "the stage")
    dvc = sweep_job.read(folder, job).pid
    assert is_running(dvc)
    os.kill(dvc, signal.SIGKILL)
    thread.join(60)
    state = sweep_job.read(folder, job)
    assert (state.state, state.reason) == ("failed", "dvc was killed by SIGKILL")
    stage = int(waits.read_text())
    until(lambda: not is_running(stage), "the end of the stage")


TRACEBACK = """\
Running stage 'train@3':
> python -m pipeline.train run=3
Error executing job with overrides: ["run='3'"]
Traceback (most recent call last):
  File "train.py", line 1, in <module>
{}

Set the environment variable HYDRA_FULL_ERROR=1 for a complete stack trace.
"""
FAILED = "ERROR: failed to reproduce 'train@3': failed to run: python -m x, exited with {}\n"


@pytest.mark.parametrize(
    ("log", "code", "reason"),
    [
        (TRACEBACK.format("ValueError: too big") + FAILED.format(1), 255, "ValueError: too big"),
        (TRACEBACK.format("MemoryError") + FAILED.format(1), 255, "MemoryError"),
        (
            TRACEBACK.format("tf.errors_impl.ResourceExhaustedError: no room") + FAILED.format(1),
            255,
            "tf.errors_impl.ResourceExhaustedError: no room",
        ),
        ("error: no source\n" + FAILED.format(1), 255, "error: no source"),
        (FAILED.format(-9), 255, "train@3 was killed by SIGKILL, perhaps because memory ran out"),
        (FAILED.format(-15), 255, "train@3 was killed by SIGTERM"),
        (FAILED.format(143), 255, "train@3 was killed by SIGTERM"),
        (FAILED.format(128), 255, "dvc ended with 255"),
        ("ERROR: no space left\n", 255, "ERROR: no space left"),
        ("", -signal.SIGSEGV, "dvc was killed by SIGSEGV"),
        ("epoch 1/2  train 0.5", 3, "dvc ended with 3"),
        (FAILED.format(1), 255, "dvc ended with 255"),
    ],
)
def test_the_reason_is_the_first_thing_to_know(tmp_path, log, code, reason):
    (tmp_path / "log").write_text(log)
    assert sweep_job._reason(code, tmp_path / "log") == reason


@pytest.mark.parametrize(
    ("error", "starts"),
    [("Unable to acquire lock. Most likely another DVC process is running", 4), ("no space", 1)],
)
def test_only_a_busy_dvc_is_started_again(repository, job, monkeypatch, error, starts):
    """In place of DVC a program that counts its starts and fails."""
    monkeypatch.setattr(sweep_job, "_ATTEMPTS", 4)
    folder = folder_for_logs(repository)
    (repository.folder / "dvc.py").write_text(
        f"open('logs/starts', 'a').write('x')\nraise SystemExit('ERROR: {error}')\n"
    )
    sweep_job.run(job, folder, None)
    state = sweep_job.read(folder, job)
    assert (state.state, state.reason) == ("failed", f"ERROR: {error}")
    assert (repository.folder / "logs" / "starts").read_text() == "x" * starts


@pytest.mark.parametrize("host", [sweep_job.HOST, "elsewhere"])
def test_an_orphan_of_this_machine_is_ended(job, tmp_path, host):
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as orphan:
        try:
            running = State("running", time.time() - 5, host, orphan.pid)
            sweep_job.end_orphan(tmp_path, job, running)
            assert is_running(orphan.pid) == (host == "elsewhere")
        finally:
            orphan.kill()
    state = sweep_job.read(tmp_path, job)
    assert state.state == "stopped"
    assert state.seconds >= 5
    assert ("elsewhere" in state.reason) == (host == "elsewhere")
    # Without a pid the worker ended before DVC began: nothing is left to end.
    sweep_job.end_orphan(tmp_path, job, State("running", time.time()))
    assert sweep_job.read(tmp_path, job).state == "stopped"
