"""Lists the experiments in a few columns: `python -m pipeline.exps`, short for `dvc exp show`."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.experiments.serialize import ExpRange, ExpState

from pipeline.config import PARAMS, PipelineError, cli, environment, flat, paths
from pipeline.reports import tables
from pipeline.reports.tables import Column

logger = logging.getLogger(__name__)

# What makes figures incomparable comes before what was tried.
_FIRST = ("run", "data", "seed", "threads")
# Of the pipeline, not of the run whose figures stand here; and the run's name, which `run` says.
_NOT_SHOWN = ("runs", "name")
_FIGURES = {"val %": "val_accuracy", "test %": "test_accuracy"}
_NONE = "\N{EN DASH}"


@dataclass(frozen=True)
class Row:
    """A commit or an experiment; `state` is empty when it is finished, `depth` 1 of a commit's."""

    name: str
    depth: int
    created: datetime | None
    figures: dict[str, Any]
    settings: dict[str, str]
    state: str = ""


def main(arguments: list[str]) -> None:
    """Prints the experiments of this commit, or of all commits."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.exps")
    parser.description = "The experiments in a few columns: name, accuracies, what differs."
    parser.add_argument("--all", action="store_true", help="those of all commits")
    everywhere: bool = parser.parse_args(arguments).all
    rows = [row for commit in shown(everywhere) for row in rows_of(commit)]
    room = tables.room()
    columns = columns_of(rows, datetime.now())
    names = ["  " * row.depth + row.name for row in rows]
    kept = tables.fitting(names, columns, room)
    tables.show_named(names, kept, styles(rows), room)
    if left_out := len(columns) - len(kept):
        settings = "setting differs" if left_out == 1 else "settings differ"
        logger.info("\n%d more %s; `dvc exp show` has them all.", left_out, settings)
    if not any(row.depth for row in rows):
        others = "" if everywhere else " (--all: those of other commits)"
        logger.info("\nNo experiments yet%s: python train.py -m run=1,2,3", others)


def shown(everywhere: bool) -> list[ExpState]:
    """What `dvc exp show` shows, without the workspace; of other commits those with experiments.

    Raises:
        PipelineError: DVC cannot say; the message is its own.
    """
    try:
        with Repo(str(environment.root())) as repo:
            commits = repo.experiments.show(all_commits=everywhere, hide_workspace=True)
    except DvcException as error:
        raise PipelineError(str(error)) from error
    head, *others = commits
    return [head, *(commit for commit in others if commit.experiments)]


def rows_of(commit: ExpState) -> Iterator[Row]:
    """The commit and its experiments, the best first and the unfinished last."""
    yield _row(commit, depth=0, state="")
    experiments = [
        _row(tip.revs[0], depth=1, state=_state(tip)) for tip in commit.experiments or ()
    ]
    yield from sorted(experiments, key=lambda row: -row.figures.get("val_accuracy", -1))


def _state(experiment: ExpRange) -> str:
    state = experiment.executor.state if experiment.executor else "success"
    return "" if state == "success" else str(state)


def _row(found: ExpState, depth: int, state: str) -> Row:
    name = found.name or found.rev[:7]
    if found.data is None:
        return Row(name, depth, None, {}, {}, state or "unreadable")
    figures = _content(found.data.metrics, str(paths.METRICS))
    settings = _content(found.data.params, str(PARAMS))
    if state:
        # Until it is finished, its other files are still those of the commit it started from.
        figures = {}
    else:
        settings |= _content(found.data.params, str(paths.BEST))
    plain = {key: str(value) for key, value in settings.items() if key not in _NOT_SHOWN}
    return Row(name, depth, found.data.timestamp, figures, plain, state)


def _content(files: dict[str, Any], name: str) -> dict[str, Any]:
    """A file as DVC read it, flat; nothing if the commit has none or a broken one."""
    return flat(files.get(name, {}).get("data") or {})


def columns_of(rows: Sequence[Row], now: datetime) -> list[Column]:
    """All columns, of the settings those that differ; where room is short the last go first."""
    differing = varying([row.settings for row in rows])
    titles = short(differing, {key for row in rows for key in row.settings})
    settings = [
        Column(titles[key], [row.settings.get(key, _NONE) for row in rows], spare=place)
        for place, key in enumerate(differing, start=1)
    ]
    figures = [
        Column(title, [_percent(row.figures.get(key)) for row in rows])
        for title, key in _FIGURES.items()
    ]
    created = Column("created", [_date(row.created, now) for row in rows])
    state = Column("state", [row.state for row in rows])
    return [*figures, *settings, created, *([state] if any(state.cells) else [])]


def varying(settings: Sequence[dict[str, str]]) -> list[str]:
    """The keys whose values differ, those that differ most first; a missing value is none.

    What differs within a run was tried; what differs between runs alone follows from the run.
    """
    values: dict[str, set[str]] = {}
    of_run: dict[tuple[str, str], set[str]] = {}
    for one in settings:
        for key, value in one.items():
            values.setdefault(key, set()).add(value)
            of_run.setdefault((key, one.get("run", "")), set()).add(value)

    def rank(key: str) -> tuple[int, int, int]:
        first = _FIRST.index(key) if key in _FIRST else len(_FIRST)
        tried = max(len(found) for (name, _), found in of_run.items() if name == key)
        return first, -tried, -len(values[key])

    return sorted((key for key, found in values.items() if len(found) > 1), key=rank)


def short(keys: Sequence[str], among: set[str]) -> dict[str, str]:
    """The last part of each key, or all of it if another key or column is called so too."""
    endings = [key.rpartition(".")[2] for key in among | {"name"}]
    last = {key: key.rpartition(".")[2] for key in keys}
    return {key: key if endings.count(end) > 1 else end for key, end in last.items()}


def styles(rows: Sequence[Row]) -> list[str]:
    """Commits bold; each commit's best experiment green."""
    return [
        "bold" if not row.depth else "green" if not rows[place - 1].depth and row.figures else ""
        for place, row in enumerate(rows)
    ]


def _percent(share: float | None) -> str:
    return _NONE if share is None else tables.hundredths(share)


def _date(created: datetime | None, now: datetime) -> str:
    """As short as it can be understood: the time of today, the day of this year."""
    if created is None:
        return _NONE
    if created.date() == now.date():
        return f"{created:%H:%M}"
    return f"{created:%d %b}" if created.year == now.year else f"{created:%d %b %Y}"


if __name__ == "__main__":
    cli.run(main)
