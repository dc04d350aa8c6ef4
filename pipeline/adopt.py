"""Copy an experiment's settings into `conf/run/<n>.yaml`: `python -m pipeline.adopt <name>`.

`params.yaml` stays as it is. `dvc exp apply` would change it: a job of a sweep has `runs: [3]`.
"""

import argparse
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from pipeline.config import PARAMS, PipelineError, cli, environment
from pipeline.storage import dvc_experiments, git
from pipeline.storage.files import write

# The stages that make the served model; the others evaluate it and write reports.
_MODEL_STAGES = ("fetch", "preprocess", "likelihood", "train")


def main(arguments: list[str]) -> None:
    """Write the run's file byte for byte as in the experiment, and show what changes."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.adopt", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("experiment", help="its name in `dvc exp show`, or a branch or commit")
    experiment = dvc_experiments.find(parser.parse_args(arguments).experiment)
    run = dvc_experiments.metrics(experiment)["run"]
    file = Path(f"conf/run/{run}.yaml")
    adopted = dvc_experiments.read(experiment, file)
    place = environment.root() / file
    here: Any = OmegaConf.to_container(OmegaConf.load(environment.root() / PARAMS))
    picks = dvc_experiments.picks(experiment)
    for key, value in picks.items():
        if key != "runs" and here.get(key) != value:
            note = f"note: the experiment had {key}={value}, {PARAMS} has {here.get(key)}"
            print(f"{note}: another model")
    deciding = dvc_experiments.deciding_files(*_MODEL_STAGES)
    files = (f"conf/data/{picks['data']}.yaml", *deciding)
    for other in git.git("diff", "--name-only", experiment.commit, "--", *files).split():
        print(f"note: the experiment had another {other}: another model")
    if place.exists() and place.read_bytes() == adopted:
        print(f"{file} has these settings already.")
        return
    if git.git("status", "--porcelain", "--", str(file)):
        remedy = f"git commit {file}, or git restore {file}"
        raise PipelineError(f"{file} has uncommitted changes that would be lost: {remedy}")
    write(place, adopted)
    print(git.git("diff", "HEAD", experiment.commit, "--", str(file)))
    print(f"Next:\n  dvc repro   builds run {run} with these settings; cached models are reused")


if __name__ == "__main__":
    cli.run(main)
