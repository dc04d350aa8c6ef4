"""The service as a process of its own, for all tests that need one."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import cached_property
from pathlib import Path

import httpx2

from serve.settings import Settings

ROOT = Path(__file__).parents[2]


class Process:
    """`python -m serve`, or another module with its options, on a free port of this machine.

    With an `output` of its own, whoever starts it must also set `url`. `enter`: a command that
    starts it elsewhere, such as `SmallDisk.enter`.
    """

    def __init__(self, folder, *module, output=None, enter=(), **environment):
        self.folder = folder
        self.log = folder / "serve.log"
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name.lower() not in Settings.model_fields
        }
        given = {
            "API_PORT": "0",
            "STATE_DIR": str(folder / "state"),
            "LOG_FORMAT": "json",
            "DRAIN_SECONDS": "0.3",
            "MAX_WAIT_SECONDS": "60",  # a machine that does much else is no overload
            **{name: str(value) for name, value in environment.items()},
        }
        self.started = time.monotonic()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*enter, sys.executable, "-m", *(module or ["serve"])],
                cwd=ROOT,
                env={**inherited, "PYTHONWARNINGS": "", **given},
                stdout=output or log,
                stderr=output or log,
                start_new_session=True,  # so that a test can press Ctrl-C
            )

    @cached_property
    def url(self):
        until(self._serving, self)
        return self._serving()[0]

    def _serving(self):
        messages = [entry["message"] for entry in self.lines()]
        return [message.split()[-1] for message in messages if message.startswith("serving")]

    def output(self):
        return self.log.read_text(errors="replace")

    def lines(self):
        """The log's entries; the last is left out while it is being written."""
        written = self.output().rpartition("\n")[0]
        return [json.loads(line) for line in written.split("\n") if line[:1] == "{"]

    def client(self, **options):
        return httpx2.Client(base_url=self.url, timeout=30, trust_env=False, **options)

    def ready(self):
        """Waits until it can predict; the seconds since it was started."""
        with self.client() as client:
            until(lambda: _answers(client), self)
        return time.monotonic() - self.started

    def children(self):
        pid = self.process.pid
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]

    def ctrl_c(self):
        """What a terminal does: the signal goes to all processes."""
        os.killpg(self.process.pid, signal.SIGINT)

    def stop(self, number=signal.SIGTERM):
        """The exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(30)


def _answers(client):
    try:
        return client.get("/health/ready").status_code == 200
    except httpx2.TransportError:
        return False


def until(condition, process=None, seconds=60):
    """Waits for the condition, which must come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, process.output() if process else "too late"
        assert not process or process.process.poll() is None, process.output()
        time.sleep(0.02)
