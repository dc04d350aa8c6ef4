"""Compares experiments, branches or commits on one page: `python -m pipeline.compare_experiments`.

Each stands for its best run. What DVC tracks of it is taken from the cache into a temporary
folder; the workspace stays as it is.
"""

from __future__ import annotations

import argparse
import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.config import PipelineError, cli, paths
from pipeline.data import dataset
from pipeline.data.dataset import Split
from pipeline.evaluation import results
from pipeline.reports import html, pairwise, plots, tables, theme
from pipeline.reports.pairwise import Candidate, PairwiseTest
from pipeline.storage import dvc_experiments
from pipeline.storage.dvc_experiments import Experiment
from pipeline.storage.files import replacing

logger = logging.getLogger(__name__)

PAGE = Path("reports/experiments.html")

_DISPUTED = 10  # images of each side of a pair


def main(arguments: list[str]) -> None:
    """Writes the page, prints the table and where the page lies."""
    options = _options(arguments)
    chosen = named(options.names) if options.names else of_head()
    with TemporaryDirectory(prefix="experiments-") as folder:
        groups = pairwise.ranked(read(chosen, Path(folder), strict=bool(options.names)))
    tests = pairwise.compare_pairs(groups)
    with replacing(options.out) as temporary:
        temporary.write_text(rendered(groups, tests, options.names))
    show(groups)
    for test in tests:
        finding, grounds = pairwise.verdict(test)
        logger.info("%s: %s", finding, grounds)
    logger.info("\n%s", options.out)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pipeline.compare_experiments")
    parser.description = "Compares experiments, branches or commits on one HTML page."
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="without any: all experiments of this commit"
    )
    parser.add_argument(
        "--out", type=Path, default=PAGE, metavar="FILE", help=f"the page; by default {PAGE}"
    )
    return parser.parse_args(arguments)


def named(names: Sequence[str]) -> list[Experiment]:
    """The experiments of these names, each once."""
    return _best([dvc_experiments.find(name) for name in dict.fromkeys(names)])


def of_head() -> list[Experiment]:
    """All experiments of the commit that is checked out.

    Raises:
        PipelineError: there is none.
    """
    if found := dvc_experiments.of_head():
        return _best(found)
    raise PipelineError(
        "this commit has no experiments yet: python train.py -m run=1,2,3\n"
        "Those of other commits can be named: make compare EXPS='main NAME', "
        "and `python -m pipeline.exps --all` lists them"
    )


def _best(chosen: list[Experiment]) -> list[Experiment]:
    """As many as a page can hold, those with the highest validation accuracy."""
    if len(chosen) <= pairwise.MAX_CANDIDATES:
        return chosen
    logger.warning(
        "Only the best %d of %d experiments are compared.", pairwise.MAX_CANDIDATES, len(chosen)
    )
    reached = {e: dvc_experiments.figures(e)["val_accuracy"] for e in chosen}
    return sorted(chosen, key=lambda experiment: -reached[experiment])[: pairwise.MAX_CANDIDATES]


def read(chosen: Sequence[Experiment], folder: Path, *, strict: bool) -> list[Candidate]:
    """The experiments as DVC's cache has them, by way of `folder`.

    Raises:
        PipelineError: one is not in the cache; unless `strict`, only if it is so of all.
    """
    tests: dict[str, Split] = {}
    candidates = []
    for number, experiment in enumerate(chosen):
        try:
            candidates.append(_read(experiment, folder / str(number), tests))
        except PipelineError as error:
            if strict:
                raise
            logger.warning("left out: %s", error)
    if not candidates:
        raise PipelineError("none of this commit's experiments can be read")
    return candidates


def _read(experiment: Experiment, folder: Path, tests: dict[str, Split]) -> Candidate:
    """The experiment's best run; `tests` keeps the test images by the hash of their data set."""
    run: int = dvc_experiments.figures(experiment)["run"]
    data: str = dvc_experiments.picks(experiment)["data"]
    files = (paths.model(run) / "model.json", paths.curves(run), paths.evaluation(run))
    dvc_experiments.checkout(experiment, folder, *files)
    result = results.read([run], data, folder)[run]
    split = result.model["data"]["sha256"]
    if split not in tests:
        dvc_experiments.checkout(experiment, folder, paths.processed(data))
        tests[split] = dataset.load(folder / paths.processed(data), "test")
    return Candidate(experiment, result, tests[split])


def rendered(
    groups: Sequence[Sequence[Candidate]], tests: Sequence[PairwiseTest], names: Sequence[str]
) -> str:
    """The page as HTML; `names` are those that were typed."""
    everyone = [candidate for group in groups for candidate in group]
    settings = {c.letter: {"run": c.result.model["run"], **_settings(c)} for c in everyone}
    labelled = dict(zip(pairwise.labels(groups), groups, strict=True))
    content = {
        "groups": labelled,
        "everyone": everyone,
        "columns": [title for title in tables.COLUMNS.items() if title[0] in _COLUMNS],
        "cells": {c.letter: tables.cells(c.result.metrics) for c in everyone},
        "roughly": [
            label for label, group in labelled.items() if not pairwise.validated_alike(group)
        ],
        "tests": [(test, *pairwise.verdict(test), sides(test)) for test in tests],
        "twins": pairwise.twins(everyone),
        "settings": html.settings(settings),
        "drawings": drawings(everyone),
        "dashed": len(everyone) <= plots.FEW,
        "colour": colour,
        "command": shlex.join(["python", "-m", "pipeline.compare_experiments", *names]),
    }
    return html.filled("experiments.html.j2", content)


_COLUMNS = ("val %", "test % (95 %)", "loss", "ECE %", "params", "size")


def _settings(candidate: Candidate) -> dict[str, Any]:
    settings: dict[str, Any] = candidate.result.model["settings"]
    return settings


def sides(test: PairwiseTest) -> list[dict[str, Any]]:
    """For each of the two, what it alone reads right: how many, and some of the images."""
    return [
        {
            "right": one,
            "wrong": other,
            "number": len(places := pairwise.disputed(one, other)),
            "images": [_image(place, one, other) for place in places[:_DISPUTED].tolist()],
        }
        for one, other in ((test.best, test.other), (test.other, test.best))
    ]


def _image(place: int, right: Candidate, wrong: Candidate) -> dict[str, Any]:
    """A test image and what the two say of it: digit and confidence."""
    said = {}
    for name, candidate in (("right", right), ("wrong", wrong)):
        probabilities = candidate.result.probabilities[place]
        said[name] = int(probabilities.argmax()), float(probabilities.max())
    test = right.test
    return {"pixels": test.images[place], "index": int(test.index[place]), **said}


def drawings(everyone: Sequence[Candidate]) -> dict[str, str]:
    """The learning curves of all in one picture, as SVG by metric."""
    curves = {candidate.letter: candidate.result.curves for candidate in everyone}
    return {
        metric: theme.svg(plots.lettered_curves(curves, metric)) for metric in ("accuracy", "loss")
    }


def colour(candidate: Candidate) -> str:
    """Its colour in CSS: that of its curve."""
    full = f"var(--{theme.name_of(candidate.place + 1)})"
    pale = f"color-mix(in srgb, {full} 50%, var(--surface))"
    return pale if plots.is_pale(candidate.place) else full


def show(groups: Sequence[Sequence[Candidate]]) -> None:
    """Prints the table, the best of each group bold."""
    everyone = [candidate for group in groups for candidate in group]
    rows = [tables.cells(candidate.result.metrics) for candidate in everyone]
    columns = [
        tables.Column("run", [row["run"] for row in rows]),
        *(
            tables.Column(title, [row[title] for row in rows], spare=max(0, place - 1))
            for place, title in enumerate(_COLUMNS)
        ),
    ]
    if len(groups) > 1:
        labelled = zip(pairwise.labels(groups), groups, strict=True)
        labels = [label for label, group in labelled for _ in group]
        columns.insert(0, tables.Column("test images", labels))
    best = {group[0].letter for group in groups}
    styles = ["bold green" if candidate.letter in best else "" for candidate in everyone]
    names = [f"{candidate.letter} {candidate.name}" for candidate in everyone]
    room = tables.room()
    tables.show_named(names, tables.fitting(names, columns, room), styles, room)


if __name__ == "__main__":
    cli.run(main)
