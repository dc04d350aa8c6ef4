"""Compare experiments, branches or commits on a page: `python -m pipeline.compare_experiments`.

Each stands for its best run, whose files come from DVC's cache by way of a temporary folder.
The workspace stays as it is.
"""

import argparse
import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.config import PipelineError, cli, paths
from pipeline.data import dataset
from pipeline.data.dataset import Split
from pipeline.evaluation import metrics, results
from pipeline.reports import html, pairwise, tables
from pipeline.reports.pairwise import Candidate, Group
from pipeline.storage import dvc_experiments
from pipeline.storage.dvc_experiments import Experiment
from pipeline.storage.files import write

logger = logging.getLogger(__name__)

PAGE = Path("reports/experiments.html")

_COLUMNS = ("run", "val %", "test % (95 %)", "loss", "ECE %", "params", "size")  # in the terminal


def main(arguments: list[str]) -> None:
    """Write the page; print the table, the verdicts and where the page is."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.compare_experiments")
    parser.description = "Compare experiments, branches or commits on one HTML page."
    everything = "default: all experiments of this commit"
    parser.add_argument("names", nargs="*", metavar="NAME", help=everything)
    names: list[str] = parser.parse_args(arguments).names
    found = [dvc_experiments.find(name) for name in dict.fromkeys(names)]
    found = found or dvc_experiments.of_head()
    if not found:
        raise PipelineError(
            "this commit has no experiments yet: python train.py -m run=1,2,3\n"
            "Those of other commits can be named: make compare EXPS='main NAME', "
            "and `python -m pipeline.exps --all` lists them"
        )
    with TemporaryDirectory(prefix="experiments-") as folder:
        candidates = read(_best(found), Path(folder), strict=bool(names))
    groups = pairwise.of_experiments(candidates)
    tests = pairwise.compare_pairs(groups)
    command = shlex.join(["python", "-m", "pipeline.compare_experiments", *names])
    write(PAGE, html.models_page("experiment", groups, tests, command))
    show(groups)
    for test in tests:
        logger.info("%s: %s", *pairwise.verdict(test))
    logger.info("\n%s", PAGE)


def _best(experiments: list[Experiment]) -> list[Experiment]:
    """Return as many as a page can hold, the best."""
    limit = pairwise.MAX_CANDIDATES
    if len(experiments) <= limit:
        return experiments
    logger.warning("Only the best %d of %d experiments are compared.", limit, len(experiments))
    ranked = sorted(experiments, key=lambda e: metrics.rank(dvc_experiments.metrics(e), e.name))
    return ranked[:limit]


def read(experiments: Sequence[Experiment], folder: Path, *, strict: bool) -> list[Candidate]:
    """Read the experiments from DVC's cache, by way of `folder`.

    It is a PipelineError if one is not in the cache; unless `strict`, only if none is.
    """
    splits: dict[str, Split] = {}
    candidates = []
    for number, experiment in enumerate(experiments):
        try:
            candidates.append(_read(experiment, folder / str(number), splits))
        except PipelineError as error:
            if strict:
                raise
            logger.warning("left out: %s", error)
    if not candidates:
        raise PipelineError("none of this commit's experiments can be read")
    return candidates


def _read(experiment: Experiment, folder: Path, splits: dict[str, Split]) -> Candidate:
    """Read the experiment's best run; `splits` keeps test images by the hash of their data set."""
    run: int = dvc_experiments.metrics(experiment)["run"]
    data: str = dvc_experiments.picks(experiment)["data"]
    files = (paths.model(run) / "model.json", paths.curves(run), paths.evaluation(run))
    dvc_experiments.checkout(experiment, folder, *files)
    result = results.read([run], data, folder)[run]
    split = result.model["data"]["sha256"]
    if split not in splits:
        dvc_experiments.checkout(experiment, folder, paths.processed(data))
        splits[split] = dataset.load(folder / paths.processed(data), "test")
    note = f"run {run} {result.metrics['name']}, commit {experiment.commit[:9]}"
    return Candidate(experiment.name, result, note=note, test=splits[split])


def show(groups: Sequence[Group]) -> None:
    """Print the table, the best of each group bold."""
    everyone = [candidate for group in groups for candidate in group]
    rows = [tables.cells(candidate.result.metrics) for candidate in everyone]
    columns = [
        tables.Column(title, [row[title] for row in rows], spare=max(0, place - 2))
        for place, title in enumerate(_COLUMNS)
    ]
    if len(groups) > 1:
        labelled = zip(pairwise.labels(groups), groups, strict=True)
        labels = [label for label, group in labelled for _ in group]
        columns.insert(0, tables.Column("test images", labels))
    best = {group[0].label for group in groups}
    styles = ["bold green" if candidate.label in best else "" for candidate in everyone]
    names = [f"{candidate.label} {candidate.name}" for candidate in everyone]
    tables.show_named(names, columns, styles)


if __name__ == "__main__":
    cli.run(main)
