"""Trials: each is the stage `train` as a process, in a temporary folder; several run at a time."""

import json
import math
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event
from typing import Any

from mlflow import MlflowClient
from optuna.trial import FrozenTrial, Trial, TrialState

from pipeline.config import CONF, PARAMS, PipelineError, environment, paths
from pipeline.evaluation import results
from pipeline.jobs import processes
from pipeline.jobs.progress import Display
from pipeline.registry import mlflow_runs
from pipeline.search.plan import Plan
from pipeline.search.study import Claim, Study

_MAX_FAILURES = 3  # without a success: then the settings are not the cause
_LOG_LINES = 15  # at the end of a log, where the error is
_INTERVAL = 1.0  # seconds between looks at other processes' trials
_RUN = "mlflow.run"


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
    """Return the variables that make our code importable and `root` the root.

    The trainings are not logged live: their epochs are read here, and logged below the study.
    """
    return {"PYTHONPATH": str(CONF.parent), "DVC_ROOT": str(root), "LIVE_LOG": "0"}


class Scheduler:
    """Runs this process's share of the trials; `parent` is the study's run in MLflow."""

    def __init__(
        self, plan: Plan, study: Study, display: Display, client: MlflowClient, parent: str
    ) -> None:
        self._plan, self._study, self._display = plan, study, display
        self._client, self._parent, self._metric = client, parent, plan.search.metric.value
        self._active: set[Training] = set()
        self._failed: list[Path] = []
        self._stopped = Event()

    def run(self, stopped: Event) -> None:
        """Run trials until the study has all, from any process, or `stopped` is set or all fail."""
        self._show_total()
        with ThreadPoolExecutor(self._plan.search.processes) as pool:
            waiting = {pool.submit(self._work) for _ in range(self._plan.search.processes)}
            try:
                while waiting and not stopped.is_set():
                    ended, waiting = wait(waiting, _INTERVAL, FIRST_EXCEPTION)
                    for worker in ended:
                        worker.result()
            finally:
                self._stopped.set()
                for training in list(self._active):
                    training.stop()
        for worker in waiting:
            worker.result()

    def _work(self) -> None:
        """Train one trial after the other, in a thread of its own."""
        while not self._stopped.is_set():
            for dead in self._study.release_dead():
                if _RUN in dead.user_attrs:
                    self._client.set_terminated(dead.user_attrs[_RUN], "KILLED")
            if claim := self._study.claim():
                self._train(claim)
                self._give_up_if_all_fail()
            elif self._study.is_over():
                return
            else:
                self._stopped.wait(_INTERVAL)

    def _train(self, claim: Claim) -> None:
        trial, search = claim.trial, self._plan.search
        settings, log = self._plan.settings(trial.params), self._study.log(trial.number)
        name, tags = f"trial-{trial.number}", {"trial": str(trial.number)}
        params = {"run": search.run, **search.picks(), **settings}
        run = mlflow_runs.start_child(
            self._client, search.data.name, self._parent, name, params, tags
        )
        trial.set_user_attr(_RUN, run)
        training = Training(self._plan, settings, self._study.folder, claim.folder, log)
        self._active.add(training)
        status, line = "KILLED", "interrupted"
        try:
            if not self._stopped.is_set():  # else `run` may not have seen this training
                status, line = self._outcome(trial, training, run)
        finally:
            training.end()
            self._active.remove(training)
            self._study.interrupt(trial.number)  # if it has no result
            claim.lock.release()
            self._client.set_terminated(run, status)
            self._display.end(f"trial {trial.number}", line)
            self._show_total()

    def _outcome(self, trial: Trial, training: Training, run: str) -> tuple[str, str]:
        """Follow a trial to its end; return its status in MLflow and its end in words."""
        epoch, title = 0, f"trial {trial.number}"
        epochs = self._plan.settings(trial.params).get("epochs", self._plan.base.epochs)
        self._display.show(title, epoch, epochs, "")
        for epoch, metrics in training.epochs():
            value = metrics[self._metric]
            mlflow_runs.log(self._client, run, metrics, epoch)
            self._display.show(title, epoch, epochs, f"{self._metric} {value:.4f}")
            if _is_hopeless(trial, value, epoch, epochs):
                self._study.optuna.tell(trial, state=TrialState.PRUNED)
                mlflow_runs.set_tags(self._client, run, {"pruned": "true"})
                return "KILLED", f"stopped after epoch {epoch}"
        if self._stopped.is_set():
            return "KILLED", "interrupted"
        try:
            metrics = training.metrics()
            value = metrics[self._metric]
            if not math.isfinite(value):
                raise PipelineError(f"{self._metric} is {value}")
        except PipelineError as error:
            log = self._study.log(trial.number)
            self._study.fail(trial)
            self._failed.append(log)
            return "FAILED", f"failed, {error}; see {log.relative_to(environment.root())}"
        self._study.optuna.tell(trial, value)
        mlflow_runs.log(self._client, run, metrics, epoch + 1)
        result = f"{self._metric} {value:.4f} (epoch {epoch}/{epochs})"
        return "FINISHED", f"{result}  {_best(self._study.ranked())}"

    def _give_up_if_all_fail(self) -> None:
        if len(self._failed) >= _MAX_FAILURES and not self._study.ranked():
            lines = self._failed[-1].read_text(errors="replace").splitlines()
            end = "\n".join(lines[-_LOG_LINES:])
            raise PipelineError(f"all trials fail; the last one's log ends with\n{end}")

    def _show_total(self) -> None:
        ended = sum(trial.state.is_finished() for trial in self._study.trials())
        self._display.show_total(ended, _best(self._study.ranked()))


def _is_hopeless(trial: Trial, value: float, epoch: int, epochs: int) -> bool:
    if not math.isfinite(value):
        return True
    trial.report(value, epoch)
    return epoch < epochs and trial.should_prune()


def _best(ranked: list[FrozenTrial]) -> str:
    return f"best {ranked[0].value:.4f} (trial {ranked[0].number})" if ranked else ""
