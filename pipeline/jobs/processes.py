"""End process groups: a program and everything that it started."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from pipeline.jobs import signals

PATIENCE = 20.0  # seconds that a process has to end after each signal
_POLL = 0.1  # seconds between looks at a process that is to end


def end_group(leader: int, *requests: signal.Signals) -> None:
    """End the process group of `leader`: send each request in turn, then SIGKILL.

    The next signal follows if the leader still runs after `PATIENCE`. Ctrl-C is ignored meanwhile.
    """
    with signals.ignored():
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
