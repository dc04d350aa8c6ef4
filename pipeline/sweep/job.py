"""One job: a DVC experiment in a temporary copy of the repository, and what became of it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipeline.config import PARAMS, PipelineError, environment, paths
from pipeline.evaluation import metrics
from pipeline.storage import dvc_experiments
from pipeline.storage.dvc_experiments import Experiment
from pipeline.storage.files import write_json
from pipeline.sweep.overrides import Job

# DVC waits 3 s for a lock that another of its processes holds, and then gives up.
_BUSY = "Unable to acquire lock"
_ATTEMPTS = 20
_STARTED = re.compile(r"^(Running stage|Stage) '", re.MULTILINE)
HOST = socket.gethostname()
_PATIENCE = 20.0  # seconds until a process that was asked to stop is killed
_CAUSE = re.compile(
    r"^(error: .+|(?:\w+\.)*\w*(?:Error|Exception|Interrupt)\b.*|ERROR: .+)$", re.MULTILINE
)
# A shell that does not give way to its only command (dash) says 128 + the signal.
_KILLED = re.compile(r"failed to reproduce '(\S+)'.*exited with (-\d+|1(?:29|[3-5]\d))\b")


@dataclass(frozen=True)
class State:
    """What is known of a job: `running`, `done`, `failed` or `stopped`; times in seconds.

    `pid` is of DVC's process on `host`, which leads a session of its own; `reused`: an earlier
    experiment had all of it already.
    """

    state: str
    started: float
    host: str = ""
    pid: int = 0
    experiment: str = ""
    reused: bool = False
    seconds: float = 0.0
    val_accuracy: float | None = None
    val_loss: float | None = None
    reason: str = ""

    def rank(self) -> tuple[float, float, str]:
        """Return the sort key by which the best finished job comes first."""
        return metrics.rank(asdict(self), self.experiment)


def log_of(folder: Path, job: Job) -> Path:
    """Where a job's output goes."""
    return folder / f"{job.name}.log"


def read(folder: Path, job: Job) -> State | None:
    """The state that the job wrote last, if it has begun."""
    file = _state_file(folder, job)
    return State(**json.loads(file.read_bytes())) if file.exists() else None


def write(folder: Path, job: Job, state: State) -> None:
    """Writes the state for whoever watches."""
    write_json(_state_file(folder, job), asdict(state))


def _state_file(folder: Path, job: Job) -> Path:
    return folder / f"{job.name}.json"


def run(job: Job, folder: Path, parent: str | None) -> None:
    """Makes the experiment, unless there is one already, and writes down how it went.

    `parent`: id of the MLflow run to hang the job's under. Raises nothing but `KeyboardInterrupt`.
    """
    started = time.time()
    write(folder, job, State("running", started))
    try:
        with _alone(job) as held:
            found = existing(job)
            reason = "" if found else _experiment(job, folder, parent, held)
    except KeyboardInterrupt:
        write(folder, job, State("stopped", started, seconds=time.time() - started))
        raise
    seconds = time.time() - started
    if reason:
        write(folder, job, State("failed", started, seconds=seconds, reason=reason))
        return
    made = found or existing(job)
    assert made is not None, "DVC said that it had made the experiment"
    figures = dvc_experiments.figures(made)
    write(
        folder,
        job,
        State(
            "done",
            started,
            experiment=made.name,
            reused=found is not None,
            seconds=seconds,
            val_accuracy=figures["val_accuracy"],
            val_loss=figures["val_loss"],
        ),
    )


def existing(job: Job) -> Experiment | None:
    """The experiment that has all of the job's settings, whichever of them its name mentions."""
    same = re.compile(rf"run{job.run}-(.+-)?{job.digest}")
    return next((e for e in dvc_experiments.of_head() if same.fullmatch(e.name)), None)


@contextmanager
def _alone(job: Job) -> Iterator[int]:
    """Waits for another process that is at the same settings; gives the lock's descriptor.

    The experiment's process inherits it, and so holds the lock even if this one is killed.
    """
    lock = FileLock(_locks() / f"run{job.run}-{job.digest}.lock")
    with lock:
        held = lock._context.lock_file_fd
        assert held is not None
        yield held


def _locks() -> Path:
    folder = environment.root() / ".checkpoints" / "jobs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def starting() -> FileLock:
    """Held while DVC starts an experiment.

    That takes DVC's own lock, and for a moment the workspace has other files: DVC puts aside what
    is not committed, writes the job's settings, and takes both back.
    """
    return FileLock(_locks() / "start.lock")


def _experiment(job: Job, folder: Path, parent: str | None, held: int) -> str:
    """Why it failed, or nothing."""
    log = log_of(folder, job)
    for _ in range(_ATTEMPTS):
        code = _run_dvc(job, folder, parent, held)
        if not code or _BUSY not in log.read_text(errors="replace"):
            break
    return _reason(code, log) if code else ""


def _run_dvc(job: Job, folder: Path, parent: str | None, held: int) -> int:
    command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", "--name", job.name]
    log = log_of(folder, job)
    with starting(), log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  a list, no shell
            command + job.settings(),
            cwd=environment.root(),
            env=_environment(job, parent),
            stdout=output,
            stderr=output,
            # Ctrl-C must end the job in an order that we choose.
            start_new_session=True,
            pass_fds=(held,),
        )
        with _ended_with_us(process):
            write(folder, job, State("running", time.time(), HOST, process.pid))
            while process.poll() is None and not _STARTED.search(log.read_text(errors="replace")):
                time.sleep(0.1)
    with _ended_with_us(process):
        code = process.wait()
    if code < 0:
        with suppress(ProcessLookupError):  # a stage outlives a DVC that is killed
            os.killpg(process.pid, signal.SIGKILL)
    return code


def _environment(job: Job, parent: str | None, **variables: str) -> dict[str, str]:
    return environment.for_program(SWEEP_PARENT=parent or "", SWEEP_LABEL=job.label, **variables)


@contextmanager
def _ended_with_us(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Ends the process and all that it started when the block is interrupted."""
    try:
        yield
    except BaseException:
        _end(process.pid)
        process.poll()  # so that it knows
        raise


def _end(leader: int) -> None:
    """Ends a session on this machine: asks, asks again, and then does not ask."""
    with _uninterrupted():
        for ask in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(leader, ask)
            for _ in range(int(_PATIENCE / 0.1)):
                with suppress(ChildProcessError):  # a worker's child is not ours
                    os.waitpid(leader, os.WNOHANG)
                if not _lives(leader):
                    return
                time.sleep(0.1)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Another Ctrl-C must not leave behind what the first one is ending."""
    if threading.current_thread() is not threading.main_thread():
        yield  # which gets no signals
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def orphaned(folder: Path, job: Job, state: State) -> None:
    """Ends what a launcher's worker left running when it went away, if it ran on this machine."""
    reason = "its worker ended"
    if state.pid and state.host == HOST:
        _end(state.pid)
    elif state.pid:
        reason = f"its worker ended; it may go on as process {state.pid} of {state.host}"
    seconds = time.time() - state.started
    write(folder, job, replace(state, state="stopped", seconds=seconds, reason=reason))


def _reason(code: int, log: Path) -> str:
    """One line: the first error of the stage that failed, else DVC's own."""
    text = log.read_text(errors="replace")
    if killed := _KILLED.search(text):
        said = int(killed[2])
        name = signal.Signals(-said if said < 0 else said - 128).name
        memory = ", perhaps for want of memory" if name == "SIGKILL" else ""
        return f"{killed[1]} was killed by {name}{memory}"
    if code < 0:
        return f"dvc was killed by {signal.Signals(-code).name}"
    causes = [line for line in _CAUSE.findall(text) if not line.startswith("ERROR: failed to repr")]
    return str(causes[-1]) if causes else f"dvc ended with {code}"


def track(job: Job, made: Experiment, parent: str | None) -> None:
    """Makes the MLflow run of an experiment whose `track` stage came out of DVC's cache."""
    with tempfile.TemporaryDirectory() as copy:
        folder = Path(copy)
        dvc_experiments.checkout(
            made, folder, *(of(job.run) for of in (paths.model, paths.evaluation, paths.curves))
        )
        for name in (PARAMS, Path("dvc.lock")):
            (folder / name).write_bytes(dvc_experiments.read(made, name))
        done = subprocess.run(  # noqa: S603  a list, no shell
            [sys.executable, "-m", "pipeline.track", f"data={job.data}"],
            cwd=folder,
            env=_environment(
                job,
                parent,
                DVC_ROOT=str(environment.root()),
                PYTHONPATH=str(environment.root()),
                DVC_EXP_NAME=made.name,
                DVC_EXP_BASELINE_REV=made.baseline,
            ),
            check=False,
            capture_output=True,
            text=True,
        )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise PipelineError(f"MLflow has no run of {made.name}: {''.join(said)}")


def digests(made: Experiment) -> dict[str, str]:
    """What identifies the MLflow runs of the experiment's models."""
    found: dict[str, Any] = json.loads(dvc_experiments.read(made, paths.TRACKED))
    return found
