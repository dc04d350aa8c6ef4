"""Programs that we start, how they end, and the signals that ask this process to end."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from types import FrameType
from typing import Any

from pipeline.config import PipelineError, environment

PATIENCE = 20.0  # seconds that a process has to end after each signal
_POLL = 0.1  # seconds between looks at a process that is to end
INTERRUPTED = 130  # the shell's exit code for a command that Ctrl-C ended


def run(failure: str, command: Sequence[str], folder: Path, **variables: str) -> None:
    """Run a program of ours in `folder`, with more environment variables.

    If it fails, a PipelineError has `failure` and all that it printed.
    """
    done = subprocess.run(  # noqa: S603  a list, no shell
        command,
        cwd=folder,
        env=environment.for_program(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise PipelineError(f"{failure}: {done.stdout.strip()}")


def end_group(leader: int, *requests: signal.Signals) -> None:
    """End the process group of `leader`: send each request in turn, then SIGKILL.

    The next signal follows if the leader still runs after `PATIENCE`. Ctrl-C is ignored meanwhile.
    """
    with _ctrl_c_ignored():
        for request in (*requests, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(leader, request)
            for _ in range(int(PATIENCE / _POLL)):
                with suppress(ChildProcessError):  # the child of another process
                    os.waitpid(leader, os.WNOHANG)
                if not is_alive(leader):
                    return
                time.sleep(_POLL)


def is_alive(pid: int) -> bool:
    """Return whether a process of this machine runs, or is a zombie that no parent has reaped."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def signals_noticed() -> Iterator[Event]:
    """Yield an event that SIGINT or SIGTERM sets; a second one of them acts as it did before."""
    event = Event()

    def notice(number: int, _: FrameType | None) -> None:
        event.set()
        signal.signal(number, before[number])

    before: dict[int, Any] = {n: signal.signal(n, notice) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    """Ignore SIGINT: another Ctrl-C must not interrupt the clean-up after the first."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets signals
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
