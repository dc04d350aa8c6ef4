import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from support import sweep_repo
from support.sweep_repo import conf, jobs

from pipeline.config import PipelineError
from pipeline.storage import dvc_experiments
from pipeline.sweep import job as sweep_job
from pipeline.sweep.job import State


def folder_for_logs(repository, name):
    folder = repository.folder / "logs" / "sweeps" / name
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def repository(workspace):
    return sweep_repo.Repository(workspace)


def wait_for(evidence, what):
    deadline = time.monotonic() + 120
    while not (found := evidence()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)
    return found


def lives(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


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


def test_what_the_job_prints_is_in_its_log(made):
    first = next(
        folder for folder, state in zip(made.folders, made.states, strict=True) if not state.reused
    )
    log = sweep_job.log_of(first, made.job).read_text()
    assert "epoch 1/3  train 0.5" in log
    assert f"Ran experiment(s): {made.job.name}" in log


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


def test_an_experiment_of_an_older_commit_is_not_taken(made):
    head = made.repository.git("rev-parse", "HEAD")
    made.repository.git("commit", "-q", "--allow-empty", "-m", "next")
    try:
        assert sweep_job.existing(made.job) is None
    finally:
        made.repository.git("reset", "-q", "--soft", head)


def test_what_identifies_its_models_is_known(made):
    assert sweep_job.digests(made.experiment) == {"3": "digest-3-7-3"}


def in_place_of_track(repository, code):
    package = repository.folder / "pipeline"
    package.mkdir(exist_ok=True)
    (package / "__init__.py").touch()
    (package / "track.py").write_text(code)


def test_its_outputs_are_given_to_track_with_its_place_in_mlflow(made, monkeypatch):
    """`pipeline.track` is replaced by one that notes what it is given."""
    in_place_of_track(
        made.repository,
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


def test_a_model_that_mlflow_did_not_get_is_named_with_the_reason(made):
    in_place_of_track(made.repository, "import sys; sys.exit('error: no space left')")
    said = f"MLflow has no run of {made.job.name}: error: no space left"
    with pytest.raises(PipelineError, match=re.escape(said)):
        sweep_job.track(made.job, made.experiment, None)


def test_ctrl_c_ends_the_job_and_all_that_it_started(repository):
    repository.with_dvc()
    folder = folder_for_logs(repository, "stopped")
    (job,) = jobs("run=1", "epochs=42")
    waits = repository.folder / "logs" / "waits"

    def press():
        wait_for(waits.exists, "the stage")
        os.kill(os.getpid(), signal.SIGINT)

    presses = threading.Thread(target=press)
    presses.start()
    with pytest.raises(KeyboardInterrupt):
        sweep_job.run(job, folder, None)
    presses.join()
    state = sweep_job.read(folder, job)
    assert (state.state, state.experiment) == ("stopped", "")
    assert state.seconds > 0
    assert not lives(int(waits.read_text()))
    assert dvc_experiments.every() == []
    # Its lock is free again.
    assert sweep_job.existing(job) is None
    with sweep_job._alone(job):
        pass


def test_a_stage_does_not_outlive_a_dvc_that_is_killed(repository):
    repository.with_dvc()
    folder = folder_for_logs(repository, "killed")
    (job,) = jobs("run=1", "epochs=42")
    waits = repository.folder / "logs" / "waits"
    thread = threading.Thread(target=sweep_job.run, args=(job, folder, None))
    thread.start()
    wait_for(waits.exists, "the stage")
    dvc = sweep_job.read(folder, job).pid
    assert lives(dvc)
    os.kill(dvc, signal.SIGKILL)
    thread.join(60)
    state = sweep_job.read(folder, job)
    assert (state.state, state.reason) == ("failed", "dvc was killed by SIGKILL")
    stage = int(waits.read_text())
    wait_for(lambda: not lives(stage), "the end of the stage")


def with_stub(repository, text, ending):
    """In place of DVC a program that prints `text`, counts its starts and ends so."""
    (repository.folder / "logs").mkdir(exist_ok=True)
    (repository.folder / "logs" / "prints").write_text(text)
    (repository.folder / "dvc.py").write_text(
        "import os, pathlib, signal, sys\n"
        "with open('logs/starts', 'a') as starts: starts.write('x')\n"
        "print(pathlib.Path('logs/prints').read_text(), flush=True)\n"
        f"{ending}\n"
    )


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
    ("log", "ending", "reason"),
    [
        (
            TRACEBACK.format("ValueError: too large") + FAILED.format(1),
            "sys.exit(255)",
            "ValueError: too large",
        ),
        (TRACEBACK.format("MemoryError") + FAILED.format(1), "sys.exit(255)", "MemoryError"),
        (
            TRACEBACK.format("tf.errors_impl.ResourceExhaustedError: no room") + FAILED.format(1),
            "sys.exit(255)",
            "tf.errors_impl.ResourceExhaustedError: no room",
        ),
        (
            "error: no source has train-images\n" + FAILED.format(1),
            "sys.exit(255)",
            "error: no source has train-images",
        ),
        (
            FAILED.format(-9),
            "sys.exit(255)",
            "train@3 was killed by SIGKILL, perhaps for want of memory",
        ),
        (FAILED.format(-15), "sys.exit(255)", "train@3 was killed by SIGTERM"),
        (FAILED.format(143), "sys.exit(255)", "train@3 was killed by SIGTERM"),
        (FAILED.format(128), "sys.exit(255)", "dvc ended with 255"),
        ("ERROR: no space left\n", "sys.exit(255)", "ERROR: no space left"),
        ("", "os.kill(os.getpid(), signal.SIGSEGV)", "dvc was killed by SIGSEGV"),
        ("epoch 1/2  train 0.5", "sys.exit(3)", "dvc ended with 3"),
        (FAILED.format(1), "sys.exit(255)", "dvc ended with 255"),
    ],
    ids=[
        *("raised", "memory", "dotted", "ours", "killed", "ended", "dash", "status"),
        *("dvc", "crash", "mute", "bare"),
    ],
)
def test_the_reason_is_the_first_thing_to_know(repository, log, ending, reason):
    with_stub(repository, log, ending)
    folder = folder_for_logs(repository, "failed")
    (job,) = jobs("run=3")
    sweep_job.run(job, folder, None)
    state = sweep_job.read(folder, job)
    assert (state.state, state.reason) == ("failed", reason)
    assert log.strip() in sweep_job.log_of(folder, job).read_text()


def test_a_busy_dvc_is_asked_again(repository, monkeypatch):
    monkeypatch.setattr(sweep_job, "_ATTEMPTS", 4)
    busy = "ERROR: Unable to acquire lock. Most likely another DVC process is running"
    with_stub(repository, busy, "sys.exit(255)")
    folder = folder_for_logs(repository, "busy")
    (job,) = jobs("run=1")
    sweep_job.run(job, folder, None)
    assert (repository.folder / "logs" / "starts").read_text() == "xxxx"
    assert sweep_job.read(folder, job).reason == busy


def test_another_failure_is_not_tried_again(repository):
    with_stub(repository, "ERROR: no space left", "sys.exit(255)")
    (job,) = jobs("run=1")
    sweep_job.run(job, folder_for_logs(repository, "failed"), None)
    assert (repository.folder / "logs" / "starts").read_text() == "x"


def test_states_are_kept_in_files(repository, tmp_path):
    (job,) = jobs("run=1")
    assert sweep_job.read(tmp_path, job) is None
    state = State("failed", 12.5, pid=7, seconds=3.0, reason="é")
    sweep_job.write(tmp_path, job, state)
    assert sweep_job.read(tmp_path, job) == state
    done = State("done", 1.0, experiment="x", val_accuracy=0.9, val_loss=0.1)
    sweep_job.write(tmp_path, job, done)
    assert sweep_job.read(tmp_path, job) == done


def test_the_better_job_comes_first():
    def state(accuracy, loss):
        return State("done", 0.0, val_accuracy=accuracy, val_loss=loss)

    best, tied, worse = state(0.9, 0.1), state(0.9, 0.2), state(0.8, 0.05)
    assert sorted([worse, tied, best], key=State.rank) == [best, tied, worse]


@pytest.mark.parametrize("ignored", ["()", "(signal.SIGINT,)", "(signal.SIGINT, signal.SIGTERM)"])
def test_what_a_worker_left_running_is_ended(repository, tmp_path, monkeypatch, ignored):
    monkeypatch.setattr(sweep_job, "_PATIENCE", 1.0)
    code = (
        "import signal, time\n"
        f"for one in {ignored}: signal.signal(one, signal.SIG_IGN)\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)"
    )
    left = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    with left:
        try:
            assert left.stdout.readline() == b"ready\n"
            (job,) = jobs("run=1")
            running = State("running", time.time() - 5, sweep_job.HOST, left.pid)
            sweep_job.orphaned(tmp_path, job, running)
            assert not lives(left.pid)
        finally:
            left.kill()
    state = sweep_job.read(tmp_path, job)
    assert replace(state, seconds=0.0) == replace(
        running, state="stopped", seconds=0.0, reason="its worker ended"
    )
    assert state.seconds >= 5


def test_another_ctrl_c_leaves_nothing_behind(repository, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_job, "_PATIENCE", 1.0)
    code = (
        "import signal, time\n"
        "def ask_again(*_): print('asked', flush=True)\n"
        "signal.signal(signal.SIGINT, ask_again)\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(1)"
    )
    stubborn = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True
    )
    (job,) = jobs("run=1")

    def press_again():
        if stubborn.stdout.readline() == b"asked\n":
            os.kill(os.getpid(), signal.SIGINT)

    with stubborn:
        try:
            assert stubborn.stdout.readline() == b"ready\n"
            presses = threading.Thread(target=press_again)
            presses.start()
            running = State("running", time.time(), sweep_job.HOST, stubborn.pid)
            sweep_job.orphaned(tmp_path, job, running)
            presses.join()
            assert not lives(stubborn.pid)
        except KeyboardInterrupt:
            pytest.fail("the second Ctrl-C came through")
        finally:
            stubborn.kill()
    assert sweep_job.read(tmp_path, job).state == "stopped"


def test_a_process_of_another_machine_is_not_taken_for_one_here(repository, tmp_path):
    (job,) = jobs("run=1")
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as unrelated:
        running = State("running", time.time(), "elsewhere", unrelated.pid)
        try:
            sweep_job.orphaned(tmp_path, job, running)
            assert lives(unrelated.pid)
        finally:
            unrelated.kill()
    assert f"process {unrelated.pid} of elsewhere" in sweep_job.read(tmp_path, job).reason


def test_a_worker_that_ended_before_dvc_began_leaves_nothing_to_end(repository, tmp_path):
    (job,) = jobs("run=1")
    sweep_job.orphaned(tmp_path, job, State("running", time.time()))
    assert sweep_job.read(tmp_path, job).state == "stopped"
