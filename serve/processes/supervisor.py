"""Supervisor: the parent process, which starts, replaces and stops the others.

It replaces uvicorn's own supervisor, which notices a death after half a second and runs no puller.
uvicorn's also imports everything again for each worker (1.2 s); a fork shares the imports.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from types import FrameType

logger = logging.getLogger(__name__)

_MIN_LIFETIME = 5.0  # seconds; a process that dies sooner is restarted with a delay
_MAX_PAUSE = 10.0
_FORK = multiprocessing.get_context("fork")


class Child:
    """A process that is restarted whenever it dies, until `work` returns.

    The parent calls `died` when the process ended in another way.
    """

    def __init__(self, name: str, work: Callable[[], None], died: Callable[[], None]) -> None:
        self.name, self._work, self._died = name, work, died
        self.process: ForkProcess | None = None
        self.due = 0.0  # when to start it
        self._started = 0.0
        self._pause = 0.0

    def start(self) -> None:
        """Fork the process."""
        self._started, self.due = time.monotonic(), float("inf")
        self.process = _FORK.Process(target=self._run, name=self.name)
        self.process.start()

    def _run(self) -> None:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        try:
            self._work()
        except Exception as error:
            logger.exception("%s failed", self.name)
            raise SystemExit(1) from error

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
        self._died()


class Supervisor:
    """Keep children running until SIGTERM or SIGINT."""

    def __init__(self, children: list[Child], stop_seconds: float) -> None:
        self._children = children
        self._stop_seconds = stop_seconds
        self._signal = 0
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)

    def run(self) -> None:
        """Run the children; return after SIGTERM or SIGINT, when none is left."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.set_wakeup_fd(self._wake)
        while not self._signal:
            for child in self._children:
                if child.due <= time.monotonic():
                    child.start()
            alive = {child.process.sentinel: child for child in self._children if child.process}
            seconds = min(child.due for child in self._children) - time.monotonic()
            timeout = None if seconds == float("inf") else max(0.0, seconds)
            for ready in wait([*alive, self._woken], timeout):
                if isinstance(ready, int) and ready in alive and not self._signal:
                    alive[ready].reap()
        self._end()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._signal = number

    def _end(self) -> None:
        logger.info("stopping")
        deadline = time.monotonic() + self._stop_seconds
        for child in self._children:
            if child.process and child.process.pid:
                os.kill(child.process.pid, self._signal)
        for child in self._children:
            if child.process:
                child.process.join(max(0.0, deadline - time.monotonic()))
                if child.process.exitcode is None:
                    logger.warning("%s did not stop in time and is killed", child.name)
                    child.process.kill()
                    child.process.join()
