"""A study of Optuna's that several processes work on, and that outlives each of them.

Every trial has a place, below the number of trials that are wanted. A trial that was interrupted
loses its place to the next one, so that it neither counts nor is missing.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from filelock import FileLock, Timeout
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from pipeline.search.plan import Plan

_PLACE, _LOG = "place", "log"
_SECONDS_FOR_A_WRITE = 60.0  # of another process: SQLite has one writer at a time
_TRIALS_FOR_IMPORTANCE = 4  # below, a forest of regression trees has nothing to split


@dataclass(frozen=True)
class Claim:
    """A trial that this process works on as long as it holds the lock."""

    trial: Trial
    folder: Path
    lock: FileLock


class Study:
    """`<folder>.db` with the trials, and `folder` with their logs and scratch folders."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan, self.folder = plan, folder
        folder.mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # At once, two processes would make the same tables, or take the same place.
        self.lock = FileLock(folder / ".lock")
        with self.lock:
            self._optuna = optuna.create_study(
                storage=RDBStorage(
                    f"sqlite:///{folder}.db",
                    engine_kwargs={"connect_args": {"timeout": _SECONDS_FOR_A_WRITE}},
                ),
                study_name=plan.study,
                direction=plan.search.metric.direction,
                load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(
                    n_startup_trials=plan.search.pruner.startup_trials,
                    n_warmup_steps=plan.search.pruner.warmup_epochs,
                ),
            )

    def claim(self) -> Claim | None:
        """The next trial; nothing if all places are taken."""
        with self.lock:
            place = self._free_place()
            if place is None:
                return None
            # Seeded by the place: a study that goes on after a stop samples as if there had been
            # none. With several processes samples differ from time to time all the same: a trial
            # is then sampled without the results of those that are still running.
            seed = np.random.SeedSequence([self._plan.search.seed, place]).generate_state(1)
            self._optuna.sampler = optuna.samplers.TPESampler(seed=int(seed[0]))
            if place == 0:
                self._optuna.enqueue_trial(self._plan.present())
            trial = self._optuna.ask(self._plan.space)
            trial.set_user_attr(_PLACE, place)
            folder = self._scratch(trial.number)
            folder.mkdir()
            lock = FileLock(folder / ".lock")
            lock.acquire()
            return Claim(trial, folder, lock)

    def release_dead(self) -> list[FrozenTrial]:
        """Ends the trials of killed processes, which nobody holds the lock of; returns them."""
        with self.lock:
            dead = [trial for trial in self._running() if not self._is_held(trial.number)]
            for trial in dead:
                self.interrupt(trial.number)
                shutil.rmtree(self._scratch(trial.number), ignore_errors=True)
        return dead

    def is_over(self) -> bool:
        """Whether all trials have ended, by whichever process."""
        with self.lock:
            return self._free_place() is None and not list(self._running())

    def complete(self, trial: Trial, value: float) -> None:
        """The training came to its end."""
        self._optuna.tell(trial, value)

    def prune(self, trial: Trial) -> None:
        """The training was stopped for being worse than others."""
        self._optuna.tell(trial, state=TrialState.PRUNED)

    def fail(self, trial: Trial) -> None:
        """The training failed, and would again."""
        trial.set_user_attr(_LOG, str(self.log(trial.number)))
        self._optuna.tell(trial, state=TrialState.FAIL)

    def interrupt(self, number: int) -> None:
        """The training was stopped for no reason of its own."""
        self._optuna.tell(number, state=TrialState.FAIL, skip_if_finished=True)

    def trials(self) -> list[FrozenTrial]:
        """Those that count: all but the interrupted ones, which failed without a log."""
        return [
            trial
            for trial in self._optuna.get_trials(deepcopy=False)
            if trial.state is not TrialState.FAIL or _LOG in trial.user_attrs
        ]

    def ranked(self) -> list[FrozenTrial]:
        """Those that trained to the end, the best first."""
        sign = 1 if self._plan.search.metric.direction == "minimize" else -1
        done = [trial for trial in self.trials() if trial.state is TrialState.COMPLETE]
        return sorted(done, key=lambda trial: (sign * (trial.value or 0.0), trial.number))

    def importance(self) -> dict[str, float]:
        """Each key's share of the metric's variance, the largest first; empty if that is unknown.

        After Hutter et al., "An Efficient Approach for Assessing Hyperparameter Importance", ICML
        2014.
        """
        values = {trial.value for trial in self.ranked()}
        if len(self.ranked()) < _TRIALS_FOR_IMPORTANCE or len(values) == 1:
            return {}
        evaluator = FanovaImportanceEvaluator(seed=self._plan.search.seed)
        return get_param_importances(self._optuna, evaluator=evaluator)

    def log(self, number: int) -> Path:
        """Where the output of a trial's training is kept."""
        return self.folder / f"trial-{number:04}.log"

    def _scratch(self, number: int) -> Path:
        return self.folder / f"trial-{number:04}"

    def _free_place(self) -> int | None:
        taken = {trial.user_attrs.get(_PLACE) for trial in self.trials()}
        return next((p for p in range(self._plan.search.trials) if p not in taken), None)

    def _running(self) -> Iterator[FrozenTrial]:
        return (trial for trial in self.trials() if trial.state is TrialState.RUNNING)

    def _is_held(self, number: int) -> bool:
        try:
            with FileLock(self._scratch(number) / ".lock", timeout=0):
                return False
        except Timeout:
            return True
