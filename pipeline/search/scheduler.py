"""Run the trials of a study, several at a time, and record how each of them ends."""

from __future__ import annotations

import math
import selectors
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from mlflow import MlflowClient
from optuna.trial import FrozenTrial

from pipeline.config import PipelineError, environment
from pipeline.jobs import parent_run
from pipeline.jobs.progress import Display
from pipeline.search.plan import Plan
from pipeline.search.study import Claim, Study
from pipeline.search.trial import Training, tail

_MAX_FAILURES = 3  # without a success: then the settings are not the cause
_INTERVAL = 1.0  # seconds between looks at other processes' trials
_RUN = "mlflow.run"


@dataclass
class _Work:
    """A trial in training: `run` is its id in MLflow, and `epoch` the last finished epoch."""

    claim: Claim
    training: Training
    settings: dict[str, Any]
    epochs: int
    run: str
    epoch: int = 0

    @property
    def number(self) -> int:
        return self.claim.trial.number

    @property
    def title(self) -> str:
        return f"trial {self.number}"


class Scheduler:
    """Runs this process's share of the trials; `parent` is the study's run in MLflow."""

    def __init__(
        self, plan: Plan, study: Study, display: Display, client: MlflowClient, parent: str
    ) -> None:
        self._plan, self._study, self._display = plan, study, display
        self._client, self._parent, self._metric = client, parent, plan.search.metric.value
        self._active: list[_Work] = []
        self._failed: list[Path] = []

    def run(self, stopped: Event) -> None:
        """Run trials until the study has all of them, from any process, or `stopped` is set.

        Raises:
            PipelineError: all trials fail.
        """
        self._show_total()
        try:
            while not stopped.is_set():
                self._fill()
                if self._study.is_over():
                    return
                self._wait()
                for work in list(self._active):
                    if not self._goes_on(work):
                        self._active.remove(work)
                self._give_up_if_all_fail()
        finally:
            for work in self._active:
                self._study.interrupt(work.number)
                self._close(work, "KILLED")

    def _fill(self) -> None:
        """Start as many trials as may run at the same time."""
        if len(self._active) == self._plan.search.processes:
            return
        for dead in self._study.release_dead():
            if _RUN in dead.user_attrs:
                parent_run.end(self._client, dead.user_attrs[_RUN], "KILLED")
        while len(self._active) < self._plan.search.processes and (claim := self._study.claim()):
            self._active.append(self._started(claim))

    def _started(self, claim: Claim) -> _Work:
        trial, search = claim.trial, self._plan.search
        settings = self._plan.settings(trial.params)
        params = {"run": search.run, **self._plan.picks(), **settings}
        name, tags = f"trial-{trial.number}", {"trial": str(trial.number)}
        run = parent_run.start_child(
            self._client, search.data.name, self._parent, name, params, tags
        )
        trial.set_user_attr(_RUN, run)
        log = self._study.log(trial.number)
        training = Training(self._plan, settings, self._study.folder, claim.folder, log)
        work = _Work(claim, training, settings, self._plan.epochs(trial.params), run)
        self._display.update(work.title, 0, work.epochs, "")
        return work

    def _wait(self) -> None:
        """Wait until a training prints something or ends."""
        with selectors.DefaultSelector() as selector:
            for work in self._active:
                selector.register(work.training.output, selectors.EVENT_READ)
            selector.select(_INTERVAL)

    def _goes_on(self, work: _Work) -> bool:
        """Read a training's new output; return whether it is still running."""
        running = work.training.advance()
        for epoch, metrics in work.training.new_epochs():
            work.epoch, value = epoch, metrics[self._metric]
            parent_run.log(self._client, work.run, metrics, epoch)
            self._display.update(work.title, epoch, work.epochs, f"{self._metric} {value:.4f}")
            if self._is_hopeless(work, value):
                self._study.prune(work.claim.trial)
                self._end(work, "KILLED", f"stopped after epoch {epoch}", pruned="true")
                return False
        if not running:
            self._conclude(work)
        return running

    def _is_hopeless(self, work: _Work, value: float) -> bool:
        if not math.isfinite(value):
            return True
        trial = work.claim.trial
        trial.report(value, work.epoch)
        return work.epoch < work.epochs and trial.should_prune()

    def _conclude(self, work: _Work) -> None:
        try:
            metrics = work.training.metrics()
        except PipelineError as error:
            self._fail(work, str(error))
            return
        value = metrics[self._metric]
        if not math.isfinite(value):
            self._fail(work, f"{self._metric} is {value}")
            return
        self._study.complete(work.claim.trial, value)
        parent_run.log(self._client, work.run, metrics, work.epoch + 1)
        result = f"{self._metric} {value:.4f} (epoch {work.epoch}/{work.epochs})"
        self._end(work, "FINISHED", f"{result}  {best(self._study.ranked())}")

    def _fail(self, work: _Work, reason: str) -> None:
        log = self._study.log(work.number)
        self._study.fail(work.claim.trial)
        self._end(work, "FAILED", f"failed, {reason}; see {log.relative_to(environment.root())}")
        self._failed.append(log)

    def _give_up_if_all_fail(self) -> None:
        if len(self._failed) >= _MAX_FAILURES and not self._study.ranked():
            raise PipelineError(
                f"all trials fail; the last one's log ends with\n{tail(self._failed[-1])}"
            )

    def _end(self, work: _Work, status: str, line: str, **tags: str) -> None:
        self._display.end(work.title, line)
        self._show_total()
        self._close(work, status, **tags)

    def _close(self, work: _Work, status: str, **tags: str) -> None:
        work.training.end()
        work.claim.lock.release()
        parent_run.end(self._client, work.run, status, **tags)

    def _show_total(self) -> None:
        ended = sum(trial.state.is_finished() for trial in self._study.trials())
        self._display.show_total(ended, best(self._study.ranked()))


def best(ranked: list[FrozenTrial]) -> str:
    """Describe the first of the ranked trials in a few words."""
    return f"best {ranked[0].value:.4f} (trial {ranked[0].number})" if ranked else ""
