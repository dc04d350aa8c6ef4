"""Turn the best trial of a search into a DVC experiment, with `train.py`."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from omegaconf import OmegaConf

from pipeline import config
from pipeline.config import PARAMS, PipelineError, environment, flat
from pipeline.jobs import signals
from pipeline.search.plan import Plan
from pipeline.search.trial import typed
from pipeline.storage import dvc_experiments


def experiment(plan: Plan, settings: dict[str, Any]) -> str:
    """Return the name of the experiment with these settings; train it only if it is missing.

    Raises:
        PipelineError: the training failed.
    """
    present: Any = OmegaConf.to_container(OmegaConf.load(PARAMS))
    picks = {key: value for key, value in plan.picks().items() if value != present[key]}
    command = ["train.py", f"run={plan.search.run}", *typed(settings | picks)]
    print(f"\nThe best trial as an experiment: python {' '.join(command)}", flush=True)
    with signals.noticed():  # Ctrl-C reaches train.py too, which needs time to clean up
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
