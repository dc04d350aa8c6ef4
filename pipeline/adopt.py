"""Takes an experiment's settings over into `conf/run/<n>.yaml`: `python -m pipeline.adopt <name>`.

The picks of `params.yaml` stay: a sweep's job has `runs: [3]` there, which `dvc exp apply` would
leave behind.
"""

from __future__ import annotations

import argparse
import difflib
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from pipeline.config import PARAMS, PipelineError, cli, environment
from pipeline.storage import dvc_experiments, git
from pipeline.storage.dvc_experiments import Experiment
from pipeline.storage.files import replacing
from pipeline.sweep.overrides import DECIDING_CODE


def main(arguments: list[str]) -> None:
    """Writes the run's file as the experiment had it, byte for byte, and shows what changes."""
    experiment = dvc_experiments.find(_options(arguments).experiment)
    run = dvc_experiments.figures(experiment)["run"]
    file = Path(f"conf/run/{run}.yaml")
    adopted = dvc_experiments.read(experiment, file)
    place = environment.root() / file
    present = place.read_bytes() if place.exists() else b""
    for line in (*different_picks(experiment), *different_files(experiment)):
        print(line)
    if adopted == present:
        print(f"{file} has these settings already.")
        return
    _require_committed(file)
    with replacing(place) as temporary:
        temporary.write_bytes(adopted)
    print(diff(file, present.decode(), adopted.decode()))
    print(
        f"Next:\n  dvc repro   builds run {run} with them; what the cache has is not trained again"
    )


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pipeline.adopt", description=__doc__)
    parser.add_argument("experiment", help="its name in `dvc exp show`, or a branch or commit")
    return parser.parse_args(arguments)


def different_picks(experiment: Experiment) -> list[str]:
    """What else made the experiment's model what it is, and is not taken over."""
    here: Any = OmegaConf.to_container(OmegaConf.load(environment.root() / PARAMS))
    return [
        f"note: the experiment had {key}={value}, {PARAMS} has {here.get(key)}: another model"
        for key, value in dvc_experiments.picks(experiment).items()
        if key != "runs" and here.get(key) != value
    ]


def different_files(experiment: Experiment) -> list[str]:
    """Data definitions and code that decide a model too, and are not taken over either."""
    data = dvc_experiments.picks(experiment)["data"]
    listed = git.git(
        "diff", "--name-only", experiment.commit, "--", f"conf/data/{data}.yaml", *DECIDING_CODE
    )
    return [f"note: the experiment had another {file}: another model" for file in listed.split()]


def _require_committed(file: Path) -> None:
    if git.git("status", "--porcelain", "--", str(file)):
        raise PipelineError(
            f"{file} has changes that are not committed and would be lost: git commit {file}, "
            f"or git restore {file}"
        )


def diff(file: Path, before: str, after: str) -> str:
    """The change as `diff -u` shows it."""
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), f"a/{file}", f"b/{file}", lineterm=""
    )
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main)
