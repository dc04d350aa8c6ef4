"""Show a sweep: the jobs' progress while they run, and a table of results at the end."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from pipeline.jobs.progress import Display
from pipeline.reports.tables import Column, hundredths, show_named
from pipeline.sweep import job as jobs
from pipeline.sweep.job import State
from pipeline.sweep.mlflow_record import Outcomes
from pipeline.sweep.overrides import Job

_STAGE = re.compile(r"^Running stage '([\w@]+)'", re.MULTILINE)
_EPOCH = re.compile(r"^epoch (\d+)/(\d+) ", re.MULTILINE)
_INTERVAL = 0.5  # seconds between looks at the jobs


def outcomes(found: list[Job], folder: Path) -> Outcomes:
    """Return each job with its present state."""
    return [(job, jobs.read(folder, job)) for job in found]


@contextmanager
def shown(found: list[Job], folder: Path) -> Iterator[None]:
    """Show the jobs' progress during the block."""
    ended = threading.Event()
    with Display("jobs", len(found)) as display:
        thread = threading.Thread(target=_watch, args=(found, folder, display, ended), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def _watch(found: list[Job], folder: Path, display: Display, ended: threading.Event) -> None:
    """Print each change of a job's state, and follow the running jobs in their logs."""
    known: dict[str, str] = {}
    last = False
    while not last:
        last = ended.wait(_INTERVAL)
        for number, (job, state) in enumerate(outcomes(found, folder), 1):
            if not state:
                continue
            title, log = f"[{number}/{len(found)}] {_title(job)}", jobs.log_of(folder, job)
            changed = known.get(job.name) != state.state
            known[job.name] = state.state
            if state.state == "running":
                if changed:
                    display.say(f"{title}: starts; log: {log}")
                display.show(title, *_doing(log))
            elif changed:
                display.end(title, _sentence(state))
        display.show_total(sum(state != "running" for state in known.values()))


def _doing(log: Path) -> tuple[int, int | None, str]:
    """Read from the log: the last epoch, the number of epochs and the stage."""
    text = log.read_text(errors="replace") if log.exists() else ""
    epochs = _EPOCH.findall(text)
    stage = str((_STAGE.findall(text) or ["starts"])[-1])
    if not epochs or not stage.startswith("train"):
        return 0, None, stage
    epoch, of = map(int, epochs[-1])
    return epoch, of, stage


def _title(job: Job) -> str:
    return f"run {job.run} {job.label}".rstrip()


def _sentence(state: State) -> str:
    took = _duration(state.seconds)
    if state.state == "done":
        how = "was done before" if state.reused else f"done in {took}"
        return f"{how}, validation accuracy {hundredths(state.val_accuracy)} %"
    return f"{state.state} after {took}{': ' if state.reason else ''}{state.reason}"


def show_results(found: Outcomes, folder: Path) -> None:
    """Print the jobs by validation accuracy, then those that failed and why."""
    done = [state for _, state in found if state and state.state == "done"]
    done.sort(key=State.rank)
    if done:
        names = [state.experiment for state in done]
        columns = [
            Column("validation %", [hundredths(state.val_accuracy) for state in done]),
            Column("loss", [f"{state.val_loss:.4f}" for state in done]),
            Column("time", ["before" if s.reused else _duration(s.seconds) for s in done]),
        ]
        show_named(names, columns, ["bold green", *[""] * (len(done) - 1)])
    console = Console(highlight=False, soft_wrap=True)
    for job, state in found:
        if not state or state.state != "done":
            end = f"{_sentence(state)}\n  {jobs.log_of(folder, job)}" if state else "did not begin"
            console.print(f"{_title(job)} {end}", style="red", markup=False)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
