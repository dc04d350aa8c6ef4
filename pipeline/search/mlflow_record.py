"""A search in MLflow: a run for the study, and under it one for each trial."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from mlflow.entities import Metric, Param, RunTag
from mlflow.entities.run import Run

from pipeline.registry import mlflow_runs
from pipeline.search.plan import Plan

STUDY = "search"


class Tracker:
    """Writes one study; several processes may write the same."""

    def __init__(self, plan: Plan) -> None:
        """Goes on with the study's run, or makes it."""
        self._plan = plan
        self._client = mlflow_runs.connect()
        with mlflow_runs.lock():
            self._experiment = mlflow_runs.experiment(self._client, plan.search.data.name)
            self.parent = self._found() or self._created(
                f"search-{plan.study}", {STUDY: plan.study}
            )
        self._client.update_run(self.parent, status="RUNNING")

    def start(self, number: int, settings: Mapping[str, Any]) -> str:
        """A new run for a trial; its id."""
        tags = {mlflow_runs.PARENT: self.parent, "trial": str(number)}
        run = self._created(f"trial-{number}", tags)
        told = {"run": self._plan.search.run, **self._plan.picks(), **settings}
        self._client.log_batch(run, params=[Param(key, str(value)) for key, value in told.items()])
        return run

    def log(self, run: str, step: int, figures: Mapping[str, float]) -> None:
        """Metrics of an epoch; those after the last one are the result."""
        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value in figures.items()]
        self._client.log_batch(run, metrics=metrics)

    def end(self, run: str, status: str, **tags: str) -> None:
        """Ends a trial's run as FINISHED, FAILED or KILLED."""
        self._client.log_batch(run, tags=[RunTag(key, value) for key, value in tags.items()])
        self._client.set_terminated(run, status)

    def close(self, status: str) -> None:
        """Ends the study's run."""
        self._client.set_terminated(self.parent, status)

    def best(self, number: int, value: float, settings: Mapping[str, Any]) -> None:
        """Writes the best trial to the study's run: tags, for params could not change later."""
        tags = {"best.trial": number} | {f"best.{key}": value for key, value in settings.items()}
        self.log(self.parent, number, {self._plan.search.metric.value: value})
        self._client.log_batch(self.parent, tags=[RunTag(k, str(v)) for k, v in tags.items()])

    def _found(self) -> str | None:
        runs: list[Run] = self._client.search_runs(
            [self._experiment], f"tags.{STUDY} = '{self._plan.study}'", max_results=1
        )
        return str(runs[0].info.run_id) if runs else None

    def _created(self, name: str, tags: Mapping[str, str]) -> str:
        run = self._client.create_run(self._experiment, run_name=name, tags=dict(tags))
        return str(run.info.run_id)
