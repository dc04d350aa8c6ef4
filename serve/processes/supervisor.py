"""Supervisor: the parent process, which starts, replaces and stops the others.

It replaces uvicorn's own supervisor, which notices a death after half a second and runs no puller.
uvicorn's also imports everything again for each worker (1.2 s); a fork shares the imports.
"""

from __future__ import annotations

import logging
import mmap
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from types import FrameType

from serve.telemetry.metrics import DEAD, HUNG

logger = logging.getLogger(__name__)

_MIN_LIFETIME = 5.0  # seconds; a process that dies sooner is restarted with a delay
_MAX_PAUSE = 10.0
_LOOK_SECONDS = 1.0  # between two looks at the heartbeats
_FORK = multiprocessing.get_context("fork")


class Child:
    """A process that is restarted whenever it dies or hangs, until `work` returns.

    `work` gets a function to call as a heartbeat. After `patience` looks without one the process is
    killed; looks are a second apart while this process runs, so no clock and no pause of the
    machine can kill it. The parent calls `died` with DEAD or HUNG before a replacement.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[Callable[[], None]], None],
        died: Callable[[str], None],
        patience: float,
    ) -> None:
        self.name, self._work, self._died, self._patience = name, work, died, patience
        self._beats = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")  # shared with the process
        self._seen = self._silent = 0
        self.process: ForkProcess | None = None
        self.due = 0.0  # when to start it
        self._started = 0.0
        self._pause = 0.0

    def start(self) -> None:
        """Fork the process."""
        self._started, self.due, self._silent = time.monotonic(), float("inf"), 0
        self.process = _FORK.Process(target=self._run, name=self.name)
        self.process.start()

    def _run(self) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the parent
        try:
            self._work(self._beat)
        except Exception as error:
            logger.exception("%s failed", self.name)
            raise SystemExit(1) from error

    def _beat(self) -> None:
        self._beats[0] += 1

    def look(self) -> None:
        """Kill the process if it hangs; it is then reaped as one that died."""
        beats = self._beats[0]
        self._silent = self._silent + 1 if beats == self._seen else 0
        self._seen = beats
        if self.process and self._silent > self._patience:
            logger.error("%s has given no sign of life and is killed", self.name)
            self.process.kill()  # SIGTERM would not reach a stopped process

    def reap(self) -> None:
        """Reap the dead process, and decide when its replacement starts."""
        assert self.process
        self.process.join()
        code, pid = self.process.exitcode, self.process.pid
        self.process.close()
        self.process = None
        if code == 0:
            return
        soon = time.monotonic() - self._started < _MIN_LIFETIME
        self._pause = min(max(2 * self._pause, 0.5), _MAX_PAUSE) if soon else 0.0
        self.due = time.monotonic() + self._pause
        logger.error("%s (pid %s) ended with %s and is replaced", self.name, pid, code)
        self._died(HUNG if self._silent > self._patience else DEAD)


class Supervisor:
    """Keep children running until SIGTERM or SIGINT. Then stop them; SIGINT again kills them."""

    def __init__(self, children: list[Child], stop_seconds: float) -> None:
        self._children = children
        self._stop_seconds = stop_seconds
        self._signals: list[int] = []
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)

    def run(self) -> None:
        """Run the children; return after SIGTERM or SIGINT, when none is left."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.set_wakeup_fd(self._wake)
        look = time.monotonic() + _LOOK_SECONDS
        while not self._signals:
            for child in self._children:
                if child.due <= time.monotonic():
                    child.start()
            alive = {child.process.sentinel: child for child in self._children if child.process}
            due = min(look, *(child.due for child in self._children))
            for ready in wait([*alive, self._woken], max(0.0, due - time.monotonic())):
                if isinstance(ready, int) and ready in alive and not self._signals:
                    alive[ready].reap()
            if time.monotonic() >= look:
                look = time.monotonic() + _LOOK_SECONDS
                for child in self._children:
                    child.look()
        self._end()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)

    def _end(self) -> None:
        logger.info("stopping")
        deadline = time.monotonic() + self._stop_seconds
        alive = [child.process for child in self._children if child.process]
        for process in alive:
            process.terminate()
        while alive and time.monotonic() < deadline and signal.SIGINT not in self._signals[1:]:
            wait([process.sentinel for process in alive], 0.1)
            alive = [process for process in alive if process.is_alive()]
        for process in alive:
            logger.warning("%s has not stopped and is killed", process.name)
            process.kill()
            process.join()
