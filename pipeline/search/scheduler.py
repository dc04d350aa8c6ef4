"""Works on a study: trains its trials, several at a time, and says of each what became of it."""

from __future__ import annotations

import math
import selectors
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from pipeline.config import PipelineError, environment
from pipeline.search.mlflow_record import Tracker
from pipeline.search.plan import Plan
from pipeline.search.progress import Display
from pipeline.search.study import Claim, Study
from pipeline.search.trial import Training, tail

_FAILURES = 3  # and no success: it is not the settings
_SECONDS = 1.0  # between looks at what other processes do
_RUN = "mlflow.run"


@dataclass
class _Work:
    """A trial in training; `run` is its id in MLflow, `epoch` the last one that ended."""

    claim: Claim
    training: Training
    settings: dict[str, Any]
    epochs: int
    run: str
    epoch: int = 0

    @property
    def number(self) -> int:
        return self.claim.trial.number


class Workers:
    """The trials that this process trains."""

    def __init__(self, plan: Plan, study: Study, tracker: Tracker, display: Display) -> None:
        self._plan, self._study = plan, study
        self._tracker, self._display = tracker, display
        self._active: list[_Work] = []
        self._failed: list[Path] = []

    def run(self, stopped: Event) -> None:
        """Trains until the study has all its trials, by whichever process, or `stopped` is set.

        Raises:
            PipelineError: all trials fail.
        """
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
                self._end(work, "KILLED")

    def _fill(self) -> None:
        """Starts as many trials as may run at the same time."""
        if len(self._active) == self._plan.search.processes:
            return
        for dead in self._study.release_dead():
            if _RUN in dead.user_attrs:
                self._tracker.end(dead.user_attrs[_RUN], "KILLED")
        while len(self._active) < self._plan.search.processes and (claim := self._study.claim()):
            self._active.append(self._started(claim))

    def _started(self, claim: Claim) -> _Work:
        trial, sampled = claim.trial, claim.trial.params
        settings = self._plan.settings(sampled)
        run = self._tracker.start(trial.number, settings)
        trial.set_user_attr(_RUN, run)
        self._display.started(trial.number, self._plan.epochs(sampled))
        log = self._study.log(trial.number)
        training = Training(self._plan, settings, self._study.folder, claim.folder, log)
        return _Work(claim, training, settings, self._plan.epochs(sampled), run)

    def _wait(self) -> None:
        """Until a training says or ends something."""
        with selectors.DefaultSelector() as selector:
            for work in self._active:
                selector.register(work.training.output, selectors.EVENT_READ)
            selector.select(_SECONDS)

    def _goes_on(self, work: _Work) -> bool:
        """Takes in what a training has done since; whether it is still to be waited for."""
        running = work.training.advance()
        for epoch, row in work.training.new_epochs():
            self._tracker.log(work.run, epoch, row)
            value = row[self._plan.search.metric.value]
            work.epoch = epoch
            self._display.epoch(work.number, epoch, value)
            if self._is_hopeless(work, value):
                self._study.prune(work.claim.trial)
                self._display.pruned(work.number, epoch)
                self._end(work, "KILLED", pruned="true")
                return False
        if running:
            return True
        self._conclude(work)
        return False

    def _is_hopeless(self, work: _Work, value: float) -> bool:
        if not math.isfinite(value):
            return True
        trial = work.claim.trial
        trial.report(value, work.epoch)
        return work.epoch < work.epochs and trial.should_prune()

    def _conclude(self, work: _Work) -> None:
        metric = self._plan.search.metric.value
        try:
            figures = work.training.figures()
        except PipelineError as error:
            self._fail(work, str(error))
            return
        value = figures[metric]
        if not math.isfinite(value):
            self._fail(work, f"{metric} is {value}")
            return
        self._study.complete(work.claim.trial, value)
        self._display.completed(work.number, value, work.epoch, work.epochs)
        self._tracker.log(work.run, work.epoch + 1, figures)
        self._end(work, "FINISHED")

    def _fail(self, work: _Work, reason: str) -> None:
        log = self._study.log(work.number)
        self._study.fail(work.claim.trial)
        self._display.failed(work.number, reason, log.relative_to(environment.root()))
        self._end(work, "FAILED")
        self._failed.append(log)

    def _give_up_if_all_fail(self) -> None:
        if len(self._failed) >= _FAILURES and not self._study.ranked():
            raise PipelineError(
                f"all trials fail; the last one's log ends with\n{tail(self._failed[-1])}"
            )

    def _end(self, work: _Work, status: str, **tags: str) -> None:
        work.training.end()
        work.claim.lock.release()
        self._tracker.end(work.run, status, **tags)
