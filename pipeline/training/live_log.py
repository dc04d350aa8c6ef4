"""A training's log while it runs: told to a process that writes it to MLflow.

So MLflow neither changes the training nor delays it, and the death of a training is noticed.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.config import environment

_WRITER = [sys.executable, "-m", "pipeline.registry.live_training"]
PATIENCE = 10.0  # seconds that the other process has at the end of the training
_MOST = 500  # characters of an error


@dataclass(frozen=True)
class Training:
    """What MLflow shows of a training before its first epoch.

    `checkpoint` is the absolute path of its checkpoint, `sha256` the digest of its data.
    """

    checkpoint: str
    run: int
    name: str
    data: str
    sha256: str
    settings: dict[str, Any]


class LiveLog:
    """The pipe to that process, which ends when the pipe does."""

    def __init__(self) -> None:
        """Start the process: its imports take as long as TensorFlow's, beside which they run."""
        self.process: subprocess.Popen[bytes] | None = None
        if environment.live_log():
            self.process = subprocess.Popen(  # noqa: S603  a list, no shell
                _WRITER,
                stdin=subprocess.PIPE,
                start_new_session=True,  # what ends the training must not end it
            )
            assert self.process.stdin
            os.set_blocking(self.process.stdin.fileno(), False)

    def start(self, training: Training) -> None:
        """Tell that the training starts, or resumes."""
        self._tell("start", asdict(training))

    def log(self, epoch: int, metrics: dict[str, float]) -> None:
        """Tell the metrics of an epoch, from 1; of a resumed training the earlier ones again."""
        self._tell("epoch", {"step": epoch, "time": int(time.time() * 1000), "metrics": metrics})

    def end(self, status: str, error: str = "") -> None:
        """Tell how the training ended, once, and wait until MLflow has it."""
        if self.process and self.process.returncode is None:
            message = _line("end", {"status": status, "error": error[:_MOST]})
            with suppress(subprocess.TimeoutExpired):
                self.process.communicate(message, timeout=PATIENCE)
            assert self.process.stdin
            self.process.kill()
            self.process.stdin.close()
            self.process.wait()

    def _tell(self, kind: str, content: dict[str, Any]) -> None:
        if self.process:
            assert self.process.stdin
            # The pipe is full or closed: the stage `track` logs what is missing.
            with suppress(BlockingIOError, BrokenPipeError):
                os.write(self.process.stdin.fileno(), _line(kind, content))


def _line(kind: str, content: dict[str, Any]) -> bytes:
    return json.dumps([kind, content]).encode() + b"\n"


@contextmanager
def live_log() -> Iterator[LiveLog]:
    """Yield the log of the training in the block; says how it ended."""
    log = LiveLog()
    try:
        yield log
    except BaseException as error:
        status = "FAILED" if isinstance(error, Exception) else "KILLED"
        log.end(status, f"{type(error).__name__}: {error}")
        raise
    log.end("FINISHED")
