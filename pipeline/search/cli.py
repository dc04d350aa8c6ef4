"""Search for better settings of a run: `python -m pipeline.search search=optimized`.

This is a hyperparameter search by Optuna. The same command continues a stopped search, and
shares the trials with a search that is running.
"""

import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from pipeline import config
from pipeline.config import CONF, PARAMS, PipelineError, arguments, environment, flat, paths
from pipeline.config.schema import checked
from pipeline.jobs import processes
from pipeline.jobs.progress import Display
from pipeline.registry import mlflow_runs
from pipeline.search import report
from pipeline.search.plan import Plan, Search, make_plan
from pipeline.search.scheduler import Scheduler, run_stage, typed
from pipeline.search.study import Study
from pipeline.storage import dvc_experiments

logger = logging.getLogger(__name__)

LOGS = Path("logs/search")
REPORT = Path("reports/search")
_PICKS = ("data", "seed", "threads")


def main(name: str, search: Search) -> None:
    """Train the missing trials, report on all, and turn the best one into an experiment."""
    plan = make_plan(name, search)
    if search.experiment:
        dvc_experiments.require_possible()
    study = Study(plan, environment.root() / LOGS / plan.study)
    logger.info("study %s: %d trials, logs in %s", plan.study, search.trials, LOGS / plan.study)
    prepare(plan, study)
    work(plan, study)

    ranked = study.ranked()
    if not ranked:
        start_over = f"rm -r {LOGS / plan.study} {LOGS / plan.study}.db"
        raise PipelineError(f"no trial completed; to start over: {start_over}")
    report.write(environment.root() / REPORT, plan, study)
    report.show(plan, ranked)
    hints = {f"{REPORT}/": "all trials, as a table and as plots"}
    if search.experiment:
        best = best_experiment(plan, plan.settings(ranked[0].params))
        hints[f"python -m pipeline.adopt {best}"] = f"copy the best settings into run {search.run}"
    logger.info("\nNext:")
    for command, effect in hints.items():
        logger.info("  %s   %s", command, effect)


def prepare(plan: Plan, study: Study) -> None:
    """Make the data once in the study's folder; the workspace's may have another seed."""
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
    """Train, with the study's run in MLflow open; exit if Ctrl-C or SIGTERM stopped it."""
    client = mlflow_runs.connect()
    name, identity = f"search-{plan.study}", ("search", plan.study)
    parent = mlflow_runs.open_parent(client, plan.search.data.name, name, identity)
    status = "FAILED"
    try:
        with processes.signals_noticed() as stopped:
            with Display("trials", plan.search.trials) as display:
                Scheduler(plan, study, display, client, parent).run(stopped)
            status = "KILLED" if stopped.is_set() else "FINISHED"
        if ranked := study.ranked():
            best = ranked[0]
            settings = {f"best.{key}": v for key, v in plan.settings(best.params).items()}
            mlflow_runs.set_tags(client, parent, {"best.trial": best.number, **settings})
            metrics = {plan.search.metric.value: best.value or 0.0}
            mlflow_runs.log(client, parent, metrics, best.number)
    finally:
        client.set_terminated(parent, status)
    if status == "KILLED":
        logger.info("Stopped; repeat the command to continue.")
        sys.exit(processes.INTERRUPTED)


def best_experiment(plan: Plan, settings: dict[str, Any]) -> str:
    """Return the name of the experiment with these settings; `train.py` trains it if missing."""
    present: Any = OmegaConf.to_container(OmegaConf.load(PARAMS))
    picks = {key: value for key, value in plan.search.picks().items() if value != present[key]}
    command = ["train.py", f"run={plan.search.run}", *typed(settings | picks)]
    print(f"\nThe best trial as an experiment: python {' '.join(command)}", flush=True)
    with processes.signals_noticed():  # Ctrl-C reaches train.py too, which needs time to clean up
        done = subprocess.run(  # noqa: S603  a list, no shell
            [sys.executable, *command], cwd=environment.root(), check=False
        )
    if done.returncode:
        raise PipelineError("train.py failed for the best trial; repeat the command to try again")
    wanted = flat(config.settings(plan.base)) | settings
    for found in reversed(dvc_experiments.of_head()):
        saved = dvc_experiments.settings(found, plan.search.run)
        if all(saved.get(key) == value for key, value in wanted.items()):
            return found.name
    raise PipelineError("train.py left no experiment with the settings of the best trial")


def run() -> None:
    """Run `main` as a Hydra application on `conf/search.yaml`."""

    def job(composed: DictConfig) -> None:
        try:
            search = checked(composed, Search, "conf/search/")
            main(HydraConfig.get().runtime.choices["search"], search)
        except PipelineError as error:
            sys.exit(f"error: {error}")
        except KeyboardInterrupt:
            sys.exit(processes.INTERRUPTED)

    ConfigStore.instance().store(name="search_schema", node=Search)
    picks = OmegaConf.masked_copy(OmegaConf.load(PARAMS), list(_PICKS))  # type: ignore[arg-type]
    try:
        sys.argv[1:] = arguments(sys.argv[1:], picks)
    except PipelineError as error:
        sys.exit(f"error: {error}")
    hydra.main(version_base="1.3", config_path=str(CONF), config_name="search")(job)()
