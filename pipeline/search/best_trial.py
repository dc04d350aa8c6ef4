"""The best trial of a search as an experiment of DVC: made by `train.py` like any other."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from omegaconf import OmegaConf

from pipeline import config
from pipeline.config import CONF, PARAMS, PipelineError, environment, flat
from pipeline.search import signals
from pipeline.search.plan import Plan
from pipeline.search.trial import typed
from pipeline.storage import dvc_experiments
from pipeline.storage.dvc_experiments import Experiment

_DOOR = "train.py"


def experiment(plan: Plan, settings: dict[str, Any]) -> str:
    """The name of the experiment with these settings; one that is there is not trained again.

    Raises:
        PipelineError: it failed, which is said above.
    """
    present: Any = OmegaConf.to_container(OmegaConf.load(PARAMS))
    picks = {key: value for key, value in plan.picks().items() if value != present[key]}
    command = [_DOOR, f"run={plan.search.run}", *typed(settings | picks)]
    print(f"\nThe best trial as an experiment: python {' '.join(command)}", flush=True)
    with signals.noticed():  # Ctrl-C reaches the door too, which needs time to clean up
        done = subprocess.run(  # noqa: S603  a list, no shell
            [sys.executable, *command], cwd=environment.root(), check=False
        )
    if done.returncode:
        raise PipelineError("the best trial is no experiment yet; the same command tries again")
    wanted = flat(config.settings(plan.base)) | settings
    for found in reversed(dvc_experiments.of_head()):
        made = _settings(found, plan.search.run)
        if all(made.get(key) == value for key, value in wanted.items()):
            return found.name
    raise PipelineError(f"{_DOOR} left no experiment with the settings of the best trial")


def _settings(found: Experiment, run: int) -> dict[str, Any]:
    """What made the experiment's model of that run, as far as keys say it."""
    file = (CONF / "run" / f"{run}.yaml").relative_to(CONF.parent)
    content: Any = OmegaConf.create(dvc_experiments.read(found, file).decode())
    return flat(OmegaConf.to_container(content)) | dvc_experiments.picks(found)  # type: ignore[arg-type]
