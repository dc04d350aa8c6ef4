"""A trial: the stage `train` as a process, in a temporary folder."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.config import CONF, PARAMS, PipelineError, environment, paths
from pipeline.evaluation import results
from pipeline.jobs import processes
from pipeline.search.plan import Plan


def run_stage(stage: str, workspace: Path, root: Path, plan: Plan) -> None:
    """Run a stage to its end in another workspace; a PipelineError has the output of a failure."""
    told = command(stage, plan.search.picks())
    processes.run(f"{stage} failed", told, workspace, **_environment(root))


class Training:
    """A running training.

    It has its own session, so that Ctrl-C reaches only this process. It writes to a pipe that this
    process reads. So if this process is killed, the training ends when it prints its next line.
    """

    def __init__(
        self, plan: Plan, settings: Mapping[str, Any], source: Path, folder: Path, log: Path
    ) -> None:
        """Start it in `folder`, with the data of the workspace `source`."""
        self._folder, self._log, self._run = folder, log, plan.search.run
        data = paths.processed(plan.search.data.name)
        (folder / data).parent.mkdir(parents=True)
        (folder / data).symlink_to(source / data)
        shutil.copy(source / PARAMS, folder)
        self._process = subprocess.Popen(  # noqa: S603  a list, no shell
            command("train", {"run": self._run, **plan.search.picks(), **settings}),
            cwd=folder,
            # Checkpoints go to this folder too, because a trial is never resumed.
            env=environment.for_program(**_environment(folder)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def epochs(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Yield each epoch (from 1) that ends, with its metrics, and copy the output to the log."""
        known = 0
        assert self._process.stdout
        with self._log.open("ab", buffering=0) as log:
            for line in self._process.stdout:
                log.write(line)
                try:
                    curves = results.read_curves(self._folder / paths.curves(self._run))
                except FileNotFoundError:  # no epoch has ended
                    continue
                ended = min(map(len, curves.values()))
                for epoch in range(known, ended):
                    yield epoch + 1, {name: curves[name][epoch] for name in results.CURVE_METRICS}
                known = ended
        self._process.wait()

    def metrics(self) -> dict[str, float]:
        """Return the finished training's validation metrics; PipelineError if it failed."""
        if self._process.returncode:
            raise PipelineError(f"exit code {self._process.returncode}")
        described = json.loads((self._folder / paths.model(self._run) / "model.json").read_bytes())
        return dict(described["metrics"])

    def stop(self) -> None:
        """Stop the training if it still runs."""
        if self._process.poll() is None:
            processes.end_group(self._process.pid, signal.SIGTERM)
            self._process.poll()  # so that Popen knows

    def end(self) -> None:
        """Stop the training and remove its folder."""
        self.stop()
        assert self._process.stdout
        self._process.stdout.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def typed(settings: Mapping[str, Any]) -> list[str]:
    """Return settings as overrides for Hydra, a float with all its digits."""
    return [f"{key}={value}" for key, value in settings.items()]


def command(stage: str, settings: Mapping[str, Any]) -> list[str]:
    """Return the command that starts a stage."""
    return [sys.executable, "-m", f"pipeline.{stage}", *typed(settings)]


def _environment(root: Path) -> dict[str, str]:
    """Return the variables that make our code importable and `root` the root."""
    return {"PYTHONPATH": str(CONF.parent), "DVC_ROOT": str(root)}
