"""Searches for settings with which a run does better: `python -m pipeline.search search=optimized`.

The same command goes on where it was stopped, and works beside one that runs.
"""

from __future__ import annotations

import logging
import shutil
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from pipeline.config import CONF, PARAMS, PipelineError, arguments, environment, paths
from pipeline.search import best_trial, report, signals
from pipeline.search.mlflow_record import Tracker
from pipeline.search.plan import Plan, Search, made
from pipeline.search.progress import Display
from pipeline.search.scheduler import Workers
from pipeline.search.study import Study
from pipeline.search.trial import run_stage

logger = logging.getLogger(__name__)

LOGS = Path("logs/search")
REPORT = Path("reports/search")
_PICKS = ("data", "seed", "threads")


def main(name: str, search: Search) -> None:
    """Trains the trials that the study lacks, reports on all, makes the best one an experiment."""
    plan = made(name, search)
    study = Study(plan, environment.root() / LOGS / plan.study)
    logger.info("study %s: %d trials, logs in %s", plan.study, search.trials, LOGS / plan.study)
    prepare(plan, study)
    work(plan, study)

    ranked = study.ranked()
    if not ranked:
        anew = f"rm -r {LOGS / plan.study} {LOGS / plan.study}.db"
        raise PipelineError(f"no trial came to its end; to try them anew: {anew}")
    report.write(environment.root() / REPORT, plan, study)
    report.show(plan, ranked)
    following = {f"{REPORT}/": "all trials, and pictures of them"}
    if search.experiment:
        best = best_trial.experiment(plan, plan.settings(ranked[0].params))
        following[f"python -m pipeline.adopt {best}"] = (
            f"the best one's settings as run {search.run}'s"
        )
    logger.info("\nNext:")
    for what, effect in following.items():
        logger.info("  %s   %s", what, effect)


def prepare(plan: Plan, study: Study) -> None:
    """Makes the data in the study's folder, once: the workspace's may be of another seed."""
    with study.lock:
        if (study.folder / paths.processed(plan.search.data.name)).exists():
            return
        shutil.copy(PARAMS, study.folder)
        raw = paths.raw(plan.search.data.name)
        if raw.exists():  # a copy, because `fetch` completes and tidies up the folder
            shutil.copytree(raw, study.folder / raw, dirs_exist_ok=True)
        for stage in ("fetch", "preprocess"):
            run_stage(stage, study.folder, environment.root(), plan)
        shutil.rmtree(study.folder / raw)


def work(plan: Plan, study: Study) -> None:
    """Trains, with the study's run in MLflow open; Ctrl-C ends the process."""
    tracker = Tracker(plan)
    status = "FAILED"
    try:
        with signals.noticed() as stopped:
            with Display(study, plan) as display:
                Workers(plan, study, tracker, display).run(stopped)
            status = "KILLED" if stopped.is_set() else "FINISHED"
        if ranked := study.ranked():
            best = ranked[0]
            tracker.best(best.number, best.value or 0.0, plan.settings(best.params))
    finally:
        tracker.close(status)
    if status == "KILLED":
        logger.info("Stopped; the same command goes on.")
        sys.exit(signals.EXIT_CODE)


def door() -> None:
    """Makes `main` a Hydra application on `conf/search.yaml`."""

    def job(composed: DictConfig) -> None:
        try:
            search: Any = resolved(composed)
            main(HydraConfig.get().runtime.choices["search"], search)
        except PipelineError as error:
            sys.exit(f"error: {error}")
        except KeyboardInterrupt:
            sys.exit(signals.EXIT_CODE)

    ConfigStore.instance().store(name="search_schema", node=Search)
    picks = OmegaConf.masked_copy(OmegaConf.load(PARAMS), list(_PICKS))  # type: ignore[arg-type]
    sys.argv[1:] = arguments(sys.argv[1:], picks)
    hydra.main(version_base="1.3", config_path=str(CONF), config_name="search")(job)()


def resolved(composed: DictConfig) -> Search:
    """The search as an object.

    Raises:
        PipelineError: a value is missing or out of its range; the message names the key.
    """
    if missing := OmegaConf.missing_keys(composed):
        raise PipelineError(f"no value for {', '.join(sorted(missing))} in conf/search/")
    search = OmegaConf.to_object(composed)
    assert isinstance(search, Search)
    return search
