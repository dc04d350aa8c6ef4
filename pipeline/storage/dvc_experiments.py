"""DVC's experiments: found by name and read, without touching the workspace."""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvc.api import DVCFileSystem
from dvc_data.index import DataIndexDirError
from omegaconf import OmegaConf

from pipeline.config import PARAMS, PipelineError, environment, paths
from pipeline.storage import git

# As DVC names them; its own bookkeeping lies under other names in refs/exps.
_REFERENCE = re.compile(r"(\w{40}) refs/exps/(\w{2})/(\w{38})/(.+)")


@dataclass(frozen=True)
class Experiment:
    """A commit that DVC made of a pipeline run; `baseline` is the commit it started from."""

    name: str
    commit: str
    baseline: str


def every() -> list[Experiment]:
    """All experiments of this repository, the oldest first."""
    listed = git.git(
        "for-each-ref", "--sort=creatordate", "--format=%(objectname) %(refname)", "refs/exps"
    )
    found = (_REFERENCE.fullmatch(line) for line in listed.splitlines())
    return [Experiment(m[4], m[1], m[2] + m[3]) for m in found if m]


def of_head() -> list[Experiment]:
    """Those that started from the commit that is checked out."""
    head = git.git("rev-parse", "HEAD")
    return [experiment for experiment in every() if experiment.baseline == head]


def find(name: str) -> Experiment:
    """The experiment of that name, or what a branch, tag or commit of that name holds.

    Raises:
        PipelineError: there is none, or several and none of them started from this commit.
    """
    named = [experiment for experiment in every() if experiment.name == name]
    here = [experiment for experiment in of_head() if experiment.name == name]
    if found := here or named:
        if len(found) > 1:
            commits = ", ".join(experiment.commit[:9] for experiment in found)
            raise PipelineError(f"several experiments are called {name}; take one of {commits}")
        return found[0]
    try:
        commit = git.git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    except git.GitError:
        raise PipelineError(_unknown(name)) from None
    return Experiment(name, commit, commit)


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, [experiment.name for experiment in every()])
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"there is no experiment or commit {name}{hint}\n`make exps` lists the experiments"


def read(experiment: Experiment, path: Path) -> bytes:
    """A file that Git tracks, as the experiment has it.

    Raises:
        PipelineError: the experiment has no such file.
    """
    try:
        return git.content("show", f"{experiment.commit}:{path.as_posix()}")
    except git.GitError:
        raise PipelineError(f"{experiment.name} has no {path}") from None


def figures(experiment: Experiment) -> dict[str, Any]:
    """`reports/metrics.json` of the experiment: its best run's figures."""
    found: dict[str, Any] = json.loads(read(experiment, paths.METRICS))
    return found


def picks(experiment: Experiment) -> dict[str, Any]:
    """`params.yaml` of the experiment."""
    plain: Any = OmegaConf.to_container(OmegaConf.create(read(experiment, PARAMS).decode()))
    return dict(plain)


def checkout(experiment: Experiment, folder: Path, *outputs: Path) -> None:
    """Puts outputs that DVC tracks, as the experiment made them, into `folder`.

    Raises:
        PipelineError: one is neither in the cache nor in a remote.
    """
    files = DVCFileSystem(str(environment.root()), rev=experiment.commit)
    for output in outputs:
        (folder / output).parent.mkdir(parents=True, exist_ok=True)
        try:
            files.get(output.as_posix(), str(folder / output), recursive=True)
        except (FileNotFoundError, DataIndexDirError):
            lost = f"{experiment.name}: {output} is not in DVC's cache"
            again = f"dvc pull, or dvc exp remove {experiment.name} and repeat it"
            raise PipelineError(f"{lost}: {again}") from None
