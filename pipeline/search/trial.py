"""A trial: the stage `train` as a process of its own, in a folder that vanishes with it."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config import CONF, PARAMS, PipelineError, environment, paths
from pipeline.evaluation.results import CURVE_METRICS
from pipeline.search.plan import Plan

_PATIENCE_SECONDS = 10.0


def run_stage(stage: str, workspace: Path, root: Path, plan: Plan) -> None:
    """Runs a stage to its end in another workspace.

    Raises:
        PipelineError: it failed; the message is what it said.
    """
    done = subprocess.run(  # noqa: S603  a list, no shell
        command(stage, plan.picks()),
        cwd=workspace,
        env=_environment(root),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise PipelineError(f"{stage} failed:\n{done.stdout.strip()}")


class Training:
    """A training under way.

    Its session is its own, so that Ctrl-C reaches this process alone. Its output comes through a
    pipe that this process empties: if this process is killed, the training ends with its next
    line.
    """

    def __init__(
        self, plan: Plan, settings: Mapping[str, Any], source: Path, folder: Path, log: Path
    ) -> None:
        """Starts; `source` is the workspace with the data, `folder` becomes the training's own."""
        self._folder, self._log, self._run, self._epochs = folder, log, plan.search.run, 0
        data = paths.processed(plan.search.data.name)
        (folder / data).parent.mkdir(parents=True)
        (folder / data).symlink_to(source / data)
        shutil.copy(source / PARAMS, folder)
        self._process = subprocess.Popen(  # noqa: S603  a list, no shell
            command("train", {"run": self._run, **plan.picks(), **settings}),
            cwd=folder,
            # Its checkpoints land in the folder too: nobody resumes a trial.
            env=_environment(folder),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self._process.stdout
        self.output = self._process.stdout
        os.set_blocking(self.output.fileno(), False)

    def advance(self) -> bool:
        """Moves what the training said to its log; whether it goes on."""
        with self._log.open("ab") as log:
            try:
                while said := os.read(self.output.fileno(), 1 << 16):
                    log.write(said)
            except BlockingIOError:  # it has no more to say at present
                return True
        self._process.wait()
        return False

    def new_epochs(self) -> list[tuple[int, dict[str, float]]]:
        """Each epoch, from 1, that ended since the last call, with its metrics."""
        curves = [self._curve(name) for name in CURVE_METRICS]
        known, self._epochs = self._epochs, min(map(len, curves))
        return [
            (epoch + 1, {name: c[epoch] for name, c in zip(CURVE_METRICS, curves, strict=True)})
            for epoch in range(known, self._epochs)
        ]

    def _curve(self, name: str) -> list[float]:
        path = self._folder / paths.curves(self._run) / "plots" / "metrics" / f"{name}.tsv"
        if not path.exists():
            return []
        whole_lines = path.read_text().rpartition("\n")[0]
        rows = csv.DictReader(io.StringIO(whole_lines), delimiter="\t")
        return [float(row[name]) for row in rows]

    def figures(self) -> dict[str, float]:
        """What the finished training found on the validation split.

        Raises:
            PipelineError: it failed.
        """
        if self._process.returncode:
            raise PipelineError(f"ended with {self._process.returncode}")
        described = json.loads((self._folder / paths.model(self._run) / "model.json").read_bytes())
        return dict(described["metrics"])

    def end(self) -> None:
        """Stops the training if it runs, and removes its folder."""
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal_number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(_PATIENCE_SECONDS)
        self.output.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def typed(settings: Mapping[str, Any]) -> list[str]:
    """Settings as Hydra's overrides, a float with all its digits."""
    return [f"{key}={value}" for key, value in settings.items()]


def tail(log: Path, lines: int = 15) -> str:
    """The end of a log, which is where the error is."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def command(stage: str, told: Mapping[str, Any]) -> list[str]:
    """How a stage is started."""
    return [sys.executable, "-m", f"pipeline.{stage}", *typed(told)]


def _environment(root: Path) -> dict[str, str]:
    """This one's, with our code to import from any folder, and `root` for the true root."""
    return environment.for_program(PYTHONPATH=str(CONF.parent), DVC_ROOT=str(root))
