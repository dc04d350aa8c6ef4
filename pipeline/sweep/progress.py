"""What a sweep shows: each job's progress while it runs, and the results at the end."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from pipeline.reports.tables import Column, hundredths, room, show_named
from pipeline.sweep import job as jobs
from pipeline.sweep.job import State
from pipeline.sweep.mlflow_record import Outcomes
from pipeline.sweep.overrides import Job

_STAGE = re.compile(r"^Running stage '([\w@]+)'", re.MULTILINE)
_EPOCH = re.compile(r"^epoch (\d+/\d+) ", re.MULTILINE)
_TAIL = 8192  # bytes of a log that tell how far the job is
_STYLES = {"done": "green", "failed": "bold red", "stopped": "yellow"}


def outcomes(found: list[Job], folder: Path) -> Outcomes:
    """What became of each job so far."""
    return [(job, jobs.read(folder, job)) for job in found]


@contextmanager
def shown(found: list[Job], folder: Path) -> Iterator[None]:
    """Shows the jobs' progress during the block: a live table, or a line for each change."""
    ended = threading.Event()
    watch = _live if Console().is_terminal else _lines
    thread = threading.Thread(target=watch, args=(found, folder, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _live(found: list[Job], folder: Path, ended: threading.Event) -> None:
    with Live(transient=True, refresh_per_second=4) as live:
        while not ended.wait(0.5):
            live.update(_progress(outcomes(found, folder), folder))


def _progress(now: Outcomes, folder: Path) -> Table:
    table = _table("job", "", "validation %", "time")
    for job, state in now:
        accuracy = state.val_accuracy if state else None
        table.add_row(
            f"run {job.run} {job.label}",
            _doing(job, state, folder),
            hundredths(accuracy) if accuracy is not None else "",
            _duration(_elapsed(state)) if state else "",
            style=_STYLES.get(state.state) if state else "dim",
        )
    return table


def _lines(found: list[Job], folder: Path, ended: threading.Event) -> None:
    console = Console(highlight=False, soft_wrap=True)
    said: dict[str, str] = {}
    while True:
        last = ended.wait(0.5)
        for number, (job, state) in enumerate(outcomes(found, folder), 1):
            if state and said.get(job.name) != state.state:
                said[job.name] = state.state
                title = f"[{number}/{len(found)}] run {job.run} {job.label}".rstrip()
                console.print(
                    f"{title}: {_sentence(state, jobs.log_of(folder, job))}", markup=False
                )
        if last:
            return


def _doing(job: Job, state: State | None, folder: Path) -> str:
    if not state:
        return "waits"
    if state.state != "running":
        return "done before" if state.reused else state.state
    log = jobs.log_of(folder, job)
    text = _tail(log) if log.exists() else ""
    epochs = _EPOCH.findall(text)
    # After many epochs their stage's name is out of sight.
    stage = (_STAGE.findall(text) or [f"train@{job.run}" if epochs else "starts"])[-1]
    training = stage.startswith("train") and epochs
    return f"{stage}, epoch {epochs[-1]}" if training else str(stage)


def _tail(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL))
        return file.read().decode(errors="replace")


def _sentence(state: State, log: Path) -> str:
    if state.state == "running":
        return f"starts; log: {log}"
    took = _duration(state.seconds)
    if state.state == "done":
        assert state.val_accuracy is not None
        how = "was done before" if state.reused else f"done in {took}"
        return f"{how}, validation accuracy {hundredths(state.val_accuracy)} %"
    return f"{state.state} after {took}{': ' if state.reason else ''}{state.reason}"


def show_results(found: Outcomes, folder: Path) -> None:
    """The jobs by validation accuracy, and what ended the others."""
    done = [state for _, state in found if state and state.state == "done"]
    done.sort(key=State.rank)
    if done:
        names = [state.experiment for state in done]
        columns = [
            Column("validation %", [hundredths(-state.rank()[0]) for state in done]),
            Column("loss", [f"{state.val_loss:.4f}" for state in done]),
            Column("time", ["before" if s.reused else _duration(s.seconds) for s in done]),
        ]
        show_named(names, columns, ["bold green", *[""] * (len(done) - 1)], room())
    console = Console(highlight=False, soft_wrap=True)
    for job, state in found:
        if not state or state.state != "done":
            title = f"run {job.run} {job.label}".rstrip()
            what = _sentence(state, folder) if state else "did not begin"
            log = f"\n  {jobs.log_of(folder, job)}" if state else ""
            console.print(f"{title} {what}{log}", style="red", markup=False)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for place, column in enumerate(columns):
        table.add_column(
            column, justify="left" if place == 0 or not column else "right", no_wrap=True
        )
    return table


def _elapsed(state: State) -> float:
    return state.seconds or time.time() - state.started


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
