"""Tables of what was measured: recorded on purpose, as each machine measures something else."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import rich.table

from docs.figures import tables
from docs.figures.tables import ROOT, Table
from pipeline.config import paths
from pipeline.data import dataset

_BEST = 10  # trials
# Columns of a benchmark that say what is wanted, not what was found, or how sure that is.
_UNSAID = ("limit", "lowest, highest round")


def machine() -> str:
    """The processor and how many cores of it there are."""
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    cores = len(os.sched_getaffinity(0))
    return f"{found[1] if found else os.uname().machine}, {cores} cores"


def record(name: str, command: str, shown: rich.table.Table) -> None:
    """Keeps what a benchmark has printed."""
    kept = [column for column in shown.columns if column.header not in _UNSAID]
    columns = [str(column.header) for column in kept]
    rows = [list(row) for row in zip(*(map(str, column.cells) for column in kept), strict=True)]
    tables.write(name, Table(command, machine(), columns, rows))


def times() -> Table:
    """How long the runs of the last `dvc repro` trained, and their exported models answer."""
    timings = json.loads((ROOT / paths.TIMINGS).read_bytes())
    rows = [
        [
            run,
            f"{found['train_seconds']:.0f} s",
            f"{found['latency_ms_p50']:.2f} ms",
            f"{found['latency_ms_p99']:.2f} ms",
            f"{found['batch_256_ms_p50']:.1f} ms",
        ]
        for run, found in timings.items()
    ]
    columns = ["run", "training", "one image, median", "one image, p99", "256 images, median"]
    return Table("dvc repro", machine(), columns, rows)


def splits() -> Table:
    """The images of each split by digit, and how bright they are."""
    statistics = json.loads((ROOT / "reports" / "data" / "statistics.json").read_bytes())
    rows = []
    for name in dataset.NAMES:
        found = statistics[name]
        digits = (f"{count:,}" for count in found["digits"].values())
        figures = (f"{found['mean']:.3f}", f"{found['std']:.3f}")
        rows.append([name, f"{found['count']:,}", *digits, *figures])
    columns = ["split", "images", *map(str, range(10)), "mean", "deviation"]
    return Table("dvc repro", machine(), columns, rows)


def likelihood() -> Table:
    """How well what is no digit is told from digits, by the best run's evaluation."""
    best = json.loads((ROOT / paths.COMPARISON).read_bytes())["best"]
    judged = json.loads((ROOT / paths.evaluation(best) / "metrics.json").read_bytes())["likelihood"]
    rows = [
        [
            kind if found["fitted"] else f"{kind} (not fitted to)",
            f"{found['auroc']:.3f}",
            f"{100 * found['refused']:.1f} %",
        ]
        for kind, found in judged["nondigits"].items()
    ]
    refused = judged["refused_digits"].items()
    rows += [
        [f"{kind} digits" if kind == "test" else kind, "", f"{100 * share:.1f} %"]
        for kind, share in refused
    ]
    return Table("dvc repro", machine(), ["kind", "AUROC", "below the threshold"], rows)


def search_trials() -> Table:
    """The best trials of the last search that came to their end."""
    with (ROOT / "reports" / "search" / "trials.csv").open() as file:
        _, _, metric, _, _, *keys = (reader := csv.DictReader(file)).fieldnames or ()
        trials = [trial for trial in reader if trial["state"] == "complete"]
    best = sorted(trials, key=lambda trial: float(trial[metric]))[:_BEST]
    columns = ["trial", metric, *(key.rpartition(".")[2].replace("_", " ") for key in keys)]
    rows = [
        [trial["trial"], f"{float(trial[metric]):.4f}", *(trial[key] for key in keys)]
        for trial in best
    ]
    return Table("python -m pipeline.search", machine(), columns, rows)


TABLES: dict[str, Callable[[], Table]] = {
    "times": times,
    "splits": splits,
    "likelihood": likelihood,
    "search-trials": search_trials,
}
