"""List the experiments in a few columns: `python -m pipeline.exps`, a short `dvc exp show`."""

import argparse
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.experiments.serialize import ExpRange, ExpState

from pipeline.config import PARAMS, PipelineError, cli, environment, flat, paths, short
from pipeline.reports import tables
from pipeline.reports.tables import Column

logger = logging.getLogger(__name__)

# These make metrics incomparable, so their columns come first.
_FIRST = ("run", "data", "seed", "threads")
# `runs` belongs to the pipeline, not to the best run; `name` repeats `run`.
_NOT_SHOWN = ("runs", "name")
_METRICS = {"val %": "val_accuracy", "test %": "test_accuracy"}
_NONE = "\N{EN DASH}"


@dataclass(frozen=True)
class Row:
    """A commit (`depth` 0) or an experiment (1); `state` is empty if it is finished."""

    name: str
    depth: int
    created: datetime | None
    metrics: dict[str, Any]
    settings: dict[str, str]
    state: str = ""


def main(arguments: list[str]) -> None:
    """Print the experiments of this commit, or of all commits."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.exps", allow_abbrev=False)
    parser.description = "List experiments: name, accuracies and the settings that differ."
    parser.add_argument("--all", action="store_true", help="list the experiments of all commits")
    everywhere: bool = parser.parse_args(arguments).all
    rows = [row for commit in shown(everywhere) for row in rows_of(commit)]
    columns = columns_of(rows)
    names = ["  " * row.depth + row.name for row in rows]
    if left_out := tables.show_named(names, columns, styles(rows)):
        settings = "setting differs" if left_out == 1 else "settings differ"
        logger.info("\n%d more %s; `dvc exp show` has them all.", left_out, settings)
    if not any(row.depth for row in rows):
        others = "" if everywhere else " (--all: of other commits)"
        logger.info("\nNo experiments yet%s: python train.py -m run=1,2,3", others)


def shown(everywhere: bool) -> list[ExpState]:
    """Return the commits of `dvc exp show` without the workspace; others only with experiments."""
    try:
        with Repo(str(environment.root())) as repo:
            commits = repo.experiments.show(all_commits=everywhere, hide_workspace=True)
    except DvcException as error:
        raise PipelineError(str(error)) from error
    head, *others = commits
    return [head, *(commit for commit in others if commit.experiments)]


def rows_of(commit: ExpState) -> Iterator[Row]:
    """Yield the commit and its experiments, the best first and the unfinished last."""
    yield _row(commit, depth=0, state="")
    experiments = [
        _row(tip.revs[0], depth=1, state=_state(tip)) for tip in commit.experiments or ()
    ]
    yield from sorted(experiments, key=lambda row: -row.metrics.get("val_accuracy", -1))


def _state(experiment: ExpRange) -> str:
    state = experiment.executor.state if experiment.executor else "success"
    return "" if state == "success" else str(state)


def _row(found: ExpState, depth: int, state: str) -> Row:
    name = found.name or found.rev[:7]
    if found.data is None:
        return Row(name, depth, None, {}, {}, state or "unreadable")
    # Until it is finished, its other files are those of the commit that it started from.
    metrics = {} if state else _content(found.data.metrics, str(paths.METRICS))
    best = {} if state else _content(found.data.params, str(paths.BEST))
    settings = _content(found.data.params, str(PARAMS)) | best
    plain = {key: str(value) for key, value in settings.items() if key not in _NOT_SHOWN}
    return Row(name, depth, found.data.timestamp, metrics, plain, state)


def _content(files: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a file as DVC read it, flat; empty if it is missing or broken."""
    return flat(files.get(name, {}).get("data") or {})


def columns_of(rows: Sequence[Row]) -> list[Column]:
    """Return the columns: metrics, settings that differ, date; a narrow table drops settings."""
    titles = short({key for row in rows for key in row.settings} | {"name"})
    settings = [
        Column(titles[key], [row.settings.get(key, _NONE) for row in rows], spare=place)
        for place, key in enumerate(varying([row.settings for row in rows]), start=1)
    ]
    metrics = [
        Column(title, [_percent(row.metrics.get(key)) for row in rows])
        for title, key in _METRICS.items()
    ]
    created = [f"{row.created:%d %b %H:%M}" if row.created else _NONE for row in rows]
    states = [row.state for row in rows]
    columns = [*metrics, *settings, Column("created", created)]
    return [*columns, Column("state", states)] if any(states) else columns


def varying(settings: Sequence[dict[str, str]]) -> list[str]:
    """Return the keys whose values differ, those with the most values first.

    A missing value does not count.
    """
    values: dict[str, set[str]] = {}
    for key, value in (item for one in settings for item in one.items()):
        values.setdefault(key, set()).add(value)

    def rank(key: str) -> tuple[int, int]:
        return _FIRST.index(key) if key in _FIRST else len(_FIRST), -len(values[key])

    return sorted((key for key, found in values.items() if len(found) > 1), key=rank)


def styles(rows: Sequence[Row]) -> list[str]:
    """Return the rows' styles: commits bold, each commit's best experiment green."""
    return [
        "bold" if not row.depth else "green" if not rows[place - 1].depth and row.metrics else ""
        for place, row in enumerate(rows)
    ]


def _percent(share: float | None) -> str:
    return _NONE if share is None else tables.hundredths(share)


if __name__ == "__main__":
    cli.run(main)
