"""Find DVC's experiments by name and read them, without touching the workspace."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvc.api import DVCFileSystem
from dvc_data.index import DataIndexDirError
from omegaconf import OmegaConf

from pipeline.config import PARAMS, PipelineError, environment, flat, paths
from pipeline.config.suggestions import did_you_mean
from pipeline.storage import git

# How DVC names experiments; other names in refs/exps are its bookkeeping.
_REFERENCE = re.compile(r"(\w{40}) refs/exps/(\w{2})/(\w{38})/(.+)")


@dataclass(frozen=True)
class Experiment:
    """A commit that DVC made of a pipeline run; `baseline` is the commit that it started from."""

    name: str
    commit: str
    baseline: str


def require_possible() -> None:
    """Refuse, before anything is computed, a repository in which DVC cannot save experiments."""
    try:
        git.git("rev-parse", "--verify", "HEAD")
    except git.GitError as error:
        raise PipelineError(
            f"DVC keeps experiments in Git, but this is no Git repository with a commit: {error}\n"
            "Without Git, train a run by its stage: python -m pipeline.train run=1"
        ) from None
    # DVC fetches an experiment from its temporary copy. Git refuses that here, and DVC ignores it.
    if git.git("rev-parse", "--is-shallow-repository") == "true":
        raise PipelineError(
            "this is a shallow clone, in which DVC saves no experiments: git fetch --unshallow"
        )


def every() -> list[Experiment]:
    """Return all experiments of this repository, the oldest first."""
    listed = git.git(
        "for-each-ref", "--sort=creatordate", "--format=%(objectname) %(refname)", "refs/exps"
    )
    found = (_REFERENCE.fullmatch(line) for line in listed.splitlines())
    return [Experiment(m[4], m[1], m[2] + m[3]) for m in found if m]


def of_head() -> list[Experiment]:
    """Return the experiments that started from the checked-out commit."""
    head = git.git("rev-parse", "HEAD")
    return [experiment for experiment in every() if experiment.baseline == head]


def find(name: str) -> Experiment:
    """Return the experiment, branch, tag or commit of that name; PipelineError if it is unclear."""
    here, everywhere = of_head(), every()
    if found := [e for e in here if e.name == name] or [e for e in everywhere if e.name == name]:
        if len(found) > 1:
            commits = ", ".join(experiment.commit[:9] for experiment in found)
            raise PipelineError(f"several experiments are called {name}; take one of {commits}")
        return found[0]
    try:
        commit = git.git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    except git.GitError:
        hint = did_you_mean(name, [experiment.name for experiment in everywhere])
        lost = f"there is no experiment or commit {name}{hint}"
        raise PipelineError(f"{lost}\n`make exps` lists the experiments") from None
    return Experiment(name, commit, commit)


def read(experiment: Experiment, path: Path) -> bytes:
    """Return the content of a file of the experiment; PipelineError if Git does not track it."""
    try:
        return git.content("show", f"{experiment.commit}:{path.as_posix()}")
    except git.GitError:
        raise PipelineError(f"{experiment.name} has no {path}") from None


def metrics(experiment: Experiment) -> dict[str, Any]:
    """Return the experiment's `reports/metrics.json`: the metrics of its best run."""
    return dict(json.loads(read(experiment, paths.METRICS)))


def picks(experiment: Experiment) -> dict[str, Any]:
    """Return the experiment's `params.yaml`."""
    return _yaml(experiment, PARAMS)


def settings(experiment: Experiment, run: int) -> dict[str, Any]:
    """Return the experiment's settings for a run, by the keys that users type."""
    chosen = picks(experiment)
    data = flat(_yaml(experiment, Path(f"conf/data/{chosen['data']}.yaml")), "data.")
    return data | flat(_yaml(experiment, Path(f"conf/run/{run}.yaml"))) | chosen


def _yaml(experiment: Experiment, path: Path) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(OmegaConf.create(read(experiment, path).decode()))
    return dict(plain)


def deciding_files(*stages: str) -> list[str]:
    """Return `dvc.yaml` and the code that these stages, or all of them, depend on."""
    pipeline = OmegaConf.load(environment.root() / "dvc.yaml")
    content: Any = OmegaConf.to_container(pipeline, resolve=False)
    named = [content["stages"][stage] for stage in stages or content["stages"]]
    every_dep = {dep for stage in named for dep in stage.get("deps", ())}
    return ["dvc.yaml", *sorted(dep for dep in every_dep if "${" not in dep)]


def checkout(experiment: Experiment, folder: Path, *outputs: Path) -> None:
    """Copy outputs of the experiment from DVC into `folder`; PipelineError if one is lost."""
    files = DVCFileSystem(str(environment.root()), rev=experiment.commit)
    for output in outputs:
        (folder / output).parent.mkdir(parents=True, exist_ok=True)
        try:
            files.get(output.as_posix(), str(folder / output), recursive=True)
        except (FileNotFoundError, DataIndexDirError):
            lost = f"{experiment.name}: {output} is not in DVC's cache"
            again = f"dvc pull, or dvc exp remove {experiment.name} and repeat it"
            raise PipelineError(f"{lost}: {again}") from None
