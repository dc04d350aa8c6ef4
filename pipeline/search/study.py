"""An Optuna study that several processes share and that a restart continues.

Every trial has a place, a number below the wanted number of trials. The place of an interrupted
trial goes to the next trial, so that interrupted trials do not count.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import optuna
from filelock import FileLock
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from pipeline.search.plan import Plan
from pipeline.storage.files import is_locked

_PLACE, _LOG = "place", "log"
_WRITE_SECONDS = 60.0  # to wait for another process, because SQLite has one writer at a time


class Claim(NamedTuple):
    """A trial of this process; the process holds the lock while it works on it."""

    trial: Trial
    folder: Path
    lock: FileLock


class Study:
    """`<folder>.db` with the trials, and `folder` with their logs and scratch folders."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan, self.folder = plan, folder
        folder.mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # Without it, two processes could create the same tables or take the same place.
        self.lock = FileLock(folder / ".lock")
        connection = {"connect_args": {"timeout": _WRITE_SECONDS}}
        pruner = plan.search.pruner
        with self.lock:
            self.optuna = optuna.create_study(
                storage=RDBStorage(f"sqlite:///{folder}.db", engine_kwargs=connection),
                study_name=plan.study,
                direction=plan.search.metric.direction,
                load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(pruner.startup_trials, pruner.warmup_epochs),
            )

    def claim(self) -> Claim | None:
        """Return the next trial, or None if all places are taken."""
        with self.lock:
            place = self._free_place()
            if place is None:
                return None
            # Seeded by the place, so that a restarted study samples as if it had never stopped.
            # With several processes samples still vary, because a trial is sampled without the
            # results of the running trials.
            seed = np.random.SeedSequence([self._plan.search.seed, place]).generate_state(1)
            self.optuna.sampler = optuna.samplers.TPESampler(seed=int(seed[0]))
            if place == 0:
                self.optuna.enqueue_trial(self._plan.present())
            trial = self.optuna.ask(self._plan.space)
            trial.set_user_attr(_PLACE, place)
            folder = self._scratch(trial.number)
            folder.mkdir()
            lock = FileLock(folder / ".lock")
            lock.acquire()
            return Claim(trial, folder, lock)

    def release_dead(self) -> list[FrozenTrial]:
        """End and return the trials of killed processes, whose locks are free."""
        with self.lock:
            dead = [t for t in self._running() if not is_locked(self._scratch(t.number) / ".lock")]
            for trial in dead:
                self.interrupt(trial.number)
                shutil.rmtree(self._scratch(trial.number), ignore_errors=True)
        return dead

    def is_over(self) -> bool:
        """Return whether all trials have ended, in any process."""
        with self.lock:
            return self._free_place() is None and not list(self._running())

    def fail(self, trial: Trial) -> None:
        """Record that the training failed, as it would again with the same settings."""
        trial.set_user_attr(_LOG, str(self.log(trial.number)))
        self.optuna.tell(trial, state=TrialState.FAIL)

    def interrupt(self, number: int) -> None:
        """Record that the search was stopped during the training, if it has no result yet."""
        self.optuna.tell(number, state=TrialState.FAIL, skip_if_finished=True)

    def trials(self) -> list[FrozenTrial]:
        """Return the trials that count: all except interrupted ones, which have no log."""
        return [
            trial
            for trial in self.optuna.get_trials(deepcopy=False)
            if trial.state is not TrialState.FAIL or _LOG in trial.user_attrs
        ]

    def ranked(self) -> list[FrozenTrial]:
        """Return the completed trials, the best first."""
        sign = 1 if self._plan.search.metric.direction == "minimize" else -1
        done = [trial for trial in self.trials() if trial.state is TrialState.COMPLETE]
        return sorted(done, key=lambda trial: (sign * (trial.value or 0.0), trial.number))

    def log(self, number: int) -> Path:
        """Return the file for the output of a trial's training."""
        return self.folder / f"trial-{number:04}.log"

    def _scratch(self, number: int) -> Path:
        return self.folder / f"trial-{number:04}"

    def _free_place(self) -> int | None:
        taken = {trial.user_attrs.get(_PLACE) for trial in self.trials()}
        return next((p for p in range(self._plan.search.trials) if p not in taken), None)

    def _running(self) -> Iterator[FrozenTrial]:
        return (trial for trial in self.trials() if trial.state is TrialState.RUNNING)
