"""Command line of `python train.py …`: Hydra runs jobs, and each job is a DVC experiment."""

import json
import logging
import os
import shutil
import signal
import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import hydra
import joblib
from hydra.core.hydra_config import HydraConfig
from mlflow import MlflowClient
from omegaconf import DictConfig, OmegaConf

from pipeline import config
from pipeline.config import CONF, PipelineError, environment
from pipeline.registry import mlflow_runs
from pipeline.storage import dvc_experiments, git
from pipeline.storage.files import write_json
from pipeline.sweep import job, mlflow_record, overrides, progress
from pipeline.sweep.overrides import Job

_PLAN = "sweep.json"
_SWEEP_FLAGS = ("-m", "--multirun")
_PRINTING_FLAGS = ("-h", "--help", "--hydra-help", "--version", "-c", "--cfg", "-i", "--info")


def main(arguments: list[str]) -> int:
    """Run the jobs that the arguments of `train.py` describe; return the exit code."""
    typed = config.arguments(arguments, OmegaConf.create())
    if any(argument.partition("=")[0] in _PRINTING_FLAGS for argument in typed):
        _print(typed)
        return 0
    settings = [argument for argument in typed if argument not in _SWEEP_FLAGS]
    if flags := [argument for argument in settings if argument.startswith("-")]:
        raise PipelineError(f"{flags[0]}: only -m (a sweep), --help, --cfg and --info are known")
    swept = len(settings) < len(typed)
    dvc_experiments.require_possible()
    with job.starting():
        found = overrides.jobs(settings)
        if len(found) > 1 and not swept:
            raise PipelineError(
                f"several values need a sweep: python train.py -m {' '.join(arguments)}"
            )
        _require_tracked(found)
        show_uncommitted()
    return _run(found, arguments, typed, swept=swept)


def _print(typed: list[str]) -> None:
    """Let Hydra print what the options ask for; of a sweep, the configuration of each job."""
    settings = [word for word in typed if "=" in word and not word.startswith("-")]
    options = [word for word in typed if word not in (*settings, *_SWEEP_FLAGS)]
    swept = any(word in _SWEEP_FLAGS for word in typed)
    found = overrides.jobs(settings) if swept else []
    if not found or not {"-c", "--cfg"} & set(options):
        _hydra([*(found[0].overrides if found else settings), *options])
        return
    for one in found:
        print(f"# run {one.run} {one.label}".rstrip(), flush=True)
        _hydra([*one.overrides, *options])


def _run(found: list[Job], arguments: list[str], typed: list[str], *, swept: bool) -> int:
    started = datetime.now().strftime("%Y-%m-%d_%H-%M-%S.%f")
    folder = environment.root() / "logs" / "sweeps" / started
    with job.starting():  # Hydra composes jobs from this copy, also while another job starts
        shutil.copytree(CONF, folder / "conf")
    client = mlflow_runs.connect()
    for name in mlflow_record.mark_dead(client):
        print(f"MLflow: {name} was left running by a crash; it is now marked as ended")
    with mlflow_record.lock(folder):
        words = [argument for argument in arguments if argument not in _SWEEP_FLAGS]
        parent = mlflow_record.open_parent(client, found, words, folder) if swept else None
        write_json(folder / _PLAN, {"parent": parent, "jobs": [asdict(one) for one in found]})
        interrupted = _launch(found, folder, typed)
        for one, state in progress.outcomes(found, folder):
            if state and state.state == "running":
                job.end_orphan(folder, one, state)
        outcomes = progress.outcomes(found, folder)
        unrecorded = _record(client, outcomes, folder, parent)
        if parent:
            mlflow_record.close_parent(client, parent, outcomes, interrupted=interrupted)
    progress.show_results(outcomes, folder)
    for error in unrecorded:
        print(error)
    _say_next(outcomes)
    if interrupted:
        return 130
    done = all(state and state.state == "done" for _, state in outcomes)
    return 0 if done and not unrecorded else 1


def _record(
    client: MlflowClient, outcomes: mlflow_record.Outcomes, folder: Path, parent: str | None
) -> list[str]:
    """Write the jobs to MLflow; return its errors, which do not affect the experiments."""
    errors = []
    for one, state in outcomes:
        try:
            if state:
                mlflow_record.complete(client, one, state, parent, job.log_of(folder, one))
        except PipelineError as error:
            errors.append(f"error: {error}")
    return errors


def _launch(found: list[Job], folder: Path, typed: list[str]) -> bool:
    """Let Hydra run the jobs; return whether they were interrupted."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with progress.shown(found, folder):
            folders = [f"hydra.{mode}.dir={folder}" for mode in ("run", "sweep")]
            launcher = _launcher_settings(typed, found)
            _hydra([*typed, *folders, "hydra.sweep.subdir=.", *launcher], folder / "conf")
    except KeyboardInterrupt:
        return True
    except SystemExit:
        pass  # Hydra has printed why its launcher failed; the jobs' states show how far it got
    return False


def _launcher_settings(typed: list[str], found: list[Job]) -> list[str]:
    """Tell each launcher how many threads a job takes; typed settings win."""
    threads = max(one.threads for one in found)
    launcher = next((a.partition("=")[2] for a in typed if a.startswith("hydra/launcher=")), "")
    submitit: dict[str, object] = {"hydra.launcher.cpus_per_task": threads}
    known: dict[str, dict[str, object]] = {
        "joblib": {"hydra.launcher.n_jobs": max(1, joblib.cpu_count() // threads)},
        # The plugin's own object_store_memory is refused by a cluster that already runs.
        "ray": {
            "+hydra.launcher.ray.remote.num_cpus": threads,
            "+hydra.launcher.ray.init.object_store_memory": "null",
        },
        "submitit_local": submitit,
        "submitit_slurm": submitit,
    }
    keys = {argument.partition("=")[0] for argument in typed}
    return [f"{key}={value}" for key, value in known.get(launcher, {}).items() if key not in keys]


def _hydra(arguments: list[str], conf: Path = CONF) -> None:
    sys.argv[1:] = arguments
    config.register_schema()
    for chatty in ("hydra", "hydra_plugins"):  # the sweep's own progress display replaces it
        logging.getLogger(chatty).setLevel(logging.WARNING)
    hydra.main(version_base="1.3", config_path=str(conf), config_name="config")(_job)()


def _job(_: DictConfig) -> None:
    """Run one job; Hydra's launcher calls this here, on another core or on another machine."""
    settings = HydraConfig.get()
    folder = Path(settings.runtime.output_dir)
    os.chdir(settings.runtime.cwd)  # the repository, at the same path on every machine
    plan: dict[str, Any] = json.loads((folder / _PLAN).read_bytes())
    planned = [Job(**one) for one in plan["jobs"]]
    # A single job's overrides are as typed, for example `1e-3`, so they cannot be compared.
    mine = set(settings.overrides.task)
    one = planned[0] if len(planned) == 1 else next(j for j in planned if set(j.overrides) == mine)
    job.run(one, folder, plan["parent"])


def _require_tracked(found: list[Job]) -> None:
    """Refuse files of runs and data sets that Git does not track: copies lack them."""
    runs = {f"conf/run/{one.run}.yaml" for one in found}
    for file in sorted(runs | {f"conf/data/{one.data}.yaml" for one in found}):
        if not git.git("ls-files", file):
            raise PipelineError(f"Git does not track {file}, so copies lack it: git add {file}")


def show_uncommitted() -> None:
    """Print the uncommitted files, which experiments include, and the untracked ones."""
    changed = git.git("diff", "--name-only", "HEAD").splitlines()
    untracked = git.git("ls-files", "--others", "--exclude-standard", "--directory").splitlines()
    if changed:
        print(f"not committed, but part of the experiments: {', '.join(changed)}")
    if untracked:
        print(f"not in Git, so not part of the experiments: {', '.join(untracked)}")


def _say_next(outcomes: mlflow_record.Outcomes) -> None:
    best = mlflow_record.best_of(outcomes)
    print("\nNext:")
    if best:
        print(f"  python -m pipeline.adopt {best.experiment}   copy its settings into conf/run/")
        print("  make exps      list the experiments (dvc exp show has all columns)")
        print("  make compare   compare the experiments on one page")
    if any(not state or state.state != "done" for _, state in outcomes):
        print("  repeat the command: finished jobs are not trained again")
    print(f"  {mlflow_runs.where_shown()}")
