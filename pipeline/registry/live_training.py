"""Log a training to MLflow while it runs; `pipeline.train` starts this and writes to its input.

The input ends with the training, also if that is killed.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from pipeline.config import PipelineError, environment, paths
from pipeline.config.startup import start_program
from pipeline.registry import live_runs, mlflow_runs
from pipeline.storage import files
from pipeline.training.live_log import Training

logger = logging.getLogger(__name__)

_RETRY = 30.0  # seconds without the store before it is asked again
_REDRAW = 2.0  # seconds between two pages
_BEFORE = Path(".checkpoints", "index.html")  # the page that the trainings' took the place of
_KILLED = {"status": "KILLED", "error": "the training was killed"}


class Follower:
    """Follows one training, and keeps what the store does not have yet: it may come back."""

    def __init__(self) -> None:
        self._client: MlflowClient | None = None
        self._training: Training | None = None
        self._page: Page | None = None
        self._run = ""
        self._logged = 0  # the last epoch that the store has
        self._epochs: list[dict[str, Any]] = []
        self._retry = 0.0
        self._warned = False

    def follow(self, lines: Iterable[str]) -> None:
        """Do what the messages say until they end."""
        self._attempt(self._connect)
        end = _KILLED
        for line in lines:
            kind, content = json.loads(line)
            if kind == "start":
                self._training = Training(**content)
                self._draw(kind, content)
            elif kind == "epoch":
                self._epochs.append(content)
                self._draw(kind, content)
            else:
                end = content
            self._attempt(self._log)
        self._draw("end", end)
        if self._training:
            self._retry = 0.0
            self._attempt(lambda: self._end(**end))

    def _draw(self, kind: str, content: dict[str, Any]) -> None:
        """Show the message on the page, if there is one; a fault of it ends the page alone."""
        try:
            if kind == "start":
                self._page = Page(Training(**content)) if environment.under_repro() else None
            elif self._page and kind == "epoch":
                self._page.add(content)
            elif self._page:
                self._page.end(finished=content["status"] == "FINISHED")
        except Exception as error:
            logger.warning("%s does not show the training: %s", paths.PAGE, error)
            self._page = None

    def _attempt(self, work: Callable[[], object]) -> None:
        if time.monotonic() < self._retry:
            return
        try:
            work()
        except (MlflowException, PipelineError, SQLAlchemyError) as error:
            self._retry = time.monotonic() + _RETRY
            if not self._warned:
                self._warned = True
                reason = str(error).partition("\n")[0]
                logger.warning("not shown in MLflow while it trains, only afterwards: %s", reason)

    def _connect(self) -> MlflowClient:
        self._client = self._client or mlflow_runs.connect()
        return self._client

    def _log(self) -> None:
        client = self._connect()
        if not self._training:
            return
        if not self._run:
            self._run = live_runs.start(client, self._training)
            known = live_runs.logged(client, self._run)
            self._logged = max((epoch for _, epoch, _ in known), default=0)
        new = [epoch for epoch in self._epochs if epoch["step"] > self._logged]
        client.log_batch(
            self._run,
            [
                Metric(name, value, epoch["time"], epoch["step"])
                for epoch in new
                for name, value in epoch["metrics"].items()
            ],
        )
        self._epochs = []
        self._logged = max([self._logged, *(epoch["step"] for epoch in new)])

    def _end(self, status: str, error: str) -> None:
        self._log()
        client = self._connect()
        if live_runs.CHECKPOINT not in client.get_run(self._run).data.tags:
            return  # `track` has made it the run of the model of another such training
        if error:
            mlflow_runs.set_tags(client, self._run, {live_runs.ERROR: error})
        client.set_terminated(self._run, status)


class Page:
    """`reports/index.html` during `dvc repro`: the curves so far, until `compare` writes it.

    The page before the build comes back if a training does not end well: DVC tracks it.
    """

    def __init__(self, training: Training) -> None:
        from pipeline.reports import training_page  # matplotlib, only where there is a page

        self._write, self._training = training_page.write_page, training
        if not paths.PAGE.exists():
            _BEFORE.unlink(missing_ok=True)
        elif not training_page.is_one(page := paths.PAGE.read_bytes()):
            files.write(_BEFORE, page)
        self._curves = training_page.trained() | {training.run: {}}
        self._drawn = 0.0

    def add(self, epoch: dict[str, Any]) -> None:
        """Add an epoch to the curves."""
        mine = self._curves[self._training.run]
        for name, value in (epoch["metrics"] | {"step": epoch["step"]}).items():
            mine.setdefault(name, []).append(value)
        if time.monotonic() > self._drawn + _REDRAW:
            self._draw(ended=False)
            self._drawn = time.monotonic()

    def end(self, *, finished: bool) -> None:
        """Show the last epoch, or put the earlier page back."""
        if finished:
            self._draw(ended=True)
        elif _BEFORE.exists():
            files.write(paths.PAGE, _BEFORE.read_bytes())
        else:
            paths.PAGE.unlink(missing_ok=True)

    def _draw(self, *, ended: bool) -> None:
        about, epochs = self._training, self._training.settings["epochs"]
        self._write(paths.PAGE, about.run, about.name, epochs, self._curves, ended=ended)


def main() -> None:
    """Follow the training that standard input tells of."""
    start_program()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    os.chdir(environment.root())  # the temporary copy of an experiment may vanish first
    # Nobody waits for this process: what fails is repeated with the next epoch.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    Follower().follow(sys.stdin)


if __name__ == "__main__":
    main()
