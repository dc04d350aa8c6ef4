"""One job: a DVC experiment in a temporary copy of the repository, and its outcome."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from filelock import FileLock

from pipeline.config import PARAMS, PipelineError, environment, paths
from pipeline.evaluation import metrics
from pipeline.jobs import processes
from pipeline.storage import dvc_experiments
from pipeline.storage.dvc_experiments import Experiment
from pipeline.storage.files import write_json
from pipeline.sweep.overrides import Job

# DVC waits 3 s for a lock that another of its processes holds, then fails with this message.
_BUSY = "Unable to acquire lock"
_ATTEMPTS = 20
_STARTED = re.compile(r"^(Running stage|Stage) '", re.MULTILINE)
HOST = socket.gethostname()
# DVC cleans up on SIGINT; SIGTERM ends it at once.
_REQUESTS = (signal.SIGINT, signal.SIGTERM)
_CAUSE = re.compile(
    r"^(error: .+|(?:\w+\.)*\w*(?:Error|Exception|Interrupt)\b.*|ERROR: .+)$", re.MULTILINE
)
# A shell that stays the parent of its only command (dash) reports 128 + the signal.
_KILLED = re.compile(r"failed to reproduce '(\S+)'.*exited with (-\d+|1(?:29|[3-5]\d))\b")


@dataclass(frozen=True)
class State:
    """The state of a job: `running`, `done`, `failed` or `stopped`; times in seconds.

    `pid` is DVC's process on `host`, the leader of its own session. `reused` means that an earlier
    experiment already had the same settings and code.
    """

    state: str
    started: float
    host: str = ""
    pid: int = 0
    experiment: str = ""
    reused: bool = False
    seconds: float = 0.0
    val_accuracy: float = 0.0
    val_loss: float = 0.0
    reason: str = ""

    def rank(self) -> tuple[float, float, str]:
        """Return the sort key by which the best finished job comes first."""
        return metrics.rank(asdict(self), self.experiment)


def log_of(folder: Path, job: Job) -> Path:
    """Return the file for the job's output."""
    return folder / f"{job.name}.log"


def read(folder: Path, job: Job) -> State | None:
    """Return the last state that the job wrote, or None if it has not started."""
    file = folder / f"{job.name}.json"
    return State(**json.loads(file.read_bytes())) if file.exists() else None


def write(folder: Path, job: Job, state: State) -> None:
    """Write the job's state to its file, for the progress display and the launcher."""
    write_json(folder / f"{job.name}.json", asdict(state))


def run(job: Job, folder: Path, parent: str | None) -> None:
    """Run the experiment, unless there is one already, and write the job's state.

    `parent` is the id of the sweep's MLflow run. Raises only `KeyboardInterrupt`.
    """
    started = time.time()
    write(folder, job, State("running", started))
    try:
        state = _outcome(job, folder, parent)
    except PipelineError as error:
        state = State("failed", started, reason=str(error))
    except KeyboardInterrupt:
        write(folder, job, State("stopped", started, seconds=time.time() - started))
        raise
    write(folder, job, replace(state, started=started, seconds=time.time() - started))


def _outcome(job: Job, folder: Path, parent: str | None) -> State:
    with _alone(job) as lock:
        found = existing(job)
        if not found:
            _experiment(job, folder, parent, lock)
    experiment = found or existing(job)
    assert experiment is not None, "DVC reported success without an experiment"
    reached = dvc_experiments.metrics(experiment)
    return State(
        "done",
        0,
        experiment=experiment.name,
        reused=found is not None,
        val_accuracy=reached["val_accuracy"],
        val_loss=reached["val_loss"],
    )


def existing(job: Job) -> Experiment | None:
    """Return the experiment with the job's settings and code; its name may mention other keys.

    It is a PipelineError if an experiment has the job's digest but other settings.
    """
    same = re.compile(rf"run{job.run}-(.+-)?{job.digest}")
    found = next((e for e in dvc_experiments.of_head() if same.fullmatch(e.name)), None)
    if found:
        saved = dvc_experiments.settings(found, job.run)
        for key, value in job.typed.items():
            if saved[key] != value:
                other = f"{found.name} has {key}={saved[key]}, not {value}"
                raise PipelineError(f"{other}: remove it with dvc exp remove {found.name}")
    return found


@contextmanager
def _alone(job: Job) -> Iterator[int]:
    """Lock the job's settings against other processes; yield the lock's file descriptor.

    The experiment's process inherits it, and so holds the lock even if this process is killed.
    """
    lock = FileLock(_locks() / f"run{job.run}-{job.digest}.lock")
    with lock:
        descriptor = lock._context.lock_file_fd
        assert descriptor is not None
        yield descriptor


def _locks() -> Path:
    folder = environment.root() / ".checkpoints" / "jobs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def starting() -> FileLock:
    """Return the lock to hold while DVC starts an experiment.

    Meanwhile DVC holds its own lock and changes the workspace: it stashes uncommitted files,
    writes the job's settings, and then restores the files.
    """
    return FileLock(_locks() / "start.lock")


def _experiment(job: Job, folder: Path, parent: str | None, lock: int) -> None:
    """Run DVC, again if it was busy; a PipelineError says why it failed."""
    log = log_of(folder, job)
    for _ in range(_ATTEMPTS):
        code = _run_dvc(job, folder, parent, lock)
        if not code or _BUSY not in log.read_text(errors="replace"):
            break
    if code:
        raise PipelineError(_reason(code, log))


def _run_dvc(job: Job, folder: Path, parent: str | None, lock: int) -> int:
    command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", "--name", job.name]
    log = log_of(folder, job)
    with starting(), log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  a list, no shell
            command + job.arguments(),
            cwd=environment.root(),
            env=environment.for_program(**_place(job, parent)),
            stdout=output,
            stderr=output,
            # Ctrl-C must reach this process alone, which then ends the job.
            start_new_session=True,
            pass_fds=(lock,),
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


def _place(job: Job, parent: str | None) -> dict[str, str]:
    """Return the variables that tell the stage `track` where its MLflow run belongs."""
    return {"SWEEP_PARENT": parent or "", "SWEEP_LABEL": job.label}


@contextmanager
def _ended_with_us(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """End the process and everything it started if the block is interrupted."""
    try:
        yield
    except BaseException:
        processes.end_group(process.pid, *_REQUESTS)
        process.poll()  # so that Popen knows
        raise


def end_orphan(folder: Path, job: Job, state: State) -> None:
    """End a job whose launcher's worker is gone, if it ran on this machine."""
    reason = "its worker ended"
    if state.pid and state.host == HOST:
        processes.end_group(state.pid, *_REQUESTS)
    elif state.pid:
        reason = f"its worker ended; process {state.pid} on {state.host} may still run"
    seconds = time.time() - state.started
    write(folder, job, replace(state, state="stopped", seconds=seconds, reason=reason))


def _reason(code: int, log: Path) -> str:
    """Return one line: the error of the stage that failed, or else DVC's own."""
    text = log.read_text(errors="replace")
    if killed := _KILLED.search(text):
        status = int(killed[2])
        name = signal.Signals(-status if status < 0 else status - 128).name
        memory = ", perhaps because memory ran out" if name == "SIGKILL" else ""
        return f"{killed[1]} was killed by {name}{memory}"
    if code < 0:
        return f"dvc was killed by {signal.Signals(-code).name}"
    causes = [line for line in _CAUSE.findall(text) if not line.startswith("ERROR: failed to repr")]
    return str(causes[-1]) if causes else f"dvc ended with {code}"


def track(job: Job, experiment: Experiment, parent: str | None) -> None:
    """Log an experiment whose `track` stage came from DVC's cache, so that MLflow has its run."""
    with tempfile.TemporaryDirectory() as copy:
        folder = Path(copy)
        outputs = (of(job.run) for of in (paths.model, paths.evaluation, paths.curves))
        dvc_experiments.checkout(experiment, folder, *outputs)
        for name in (PARAMS, Path("dvc.lock")):
            (folder / name).write_bytes(dvc_experiments.read(experiment, name))
        processes.run(
            f"MLflow has no run of {experiment.name}",
            [sys.executable, "-m", "pipeline.track", f"data={job.data}"],
            folder,
            **_place(job, parent),
            DVC_ROOT=str(environment.root()),
            PYTHONPATH=str(environment.root()),
            DVC_EXP_NAME=experiment.name,
            DVC_EXP_BASELINE_REV=experiment.baseline,
        )
