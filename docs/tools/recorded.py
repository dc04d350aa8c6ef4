"""Measured tables: recorded on request, because every machine measures something else."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import rich.table
from rich.console import Console

from docs.tools import tables
from docs.tools.tables import ROOT, Table
from pipeline.config import paths

# Columns of a benchmark that hold a limit or an uncertainty, not a result.
_LEFT_OUT = ("limit", "lowest, highest round")


def machine() -> str:
    """Return the name of the processor and its number of usable cores."""
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    cores = len(os.sched_getaffinity(0))
    return f"{found[1] if found else os.uname().machine}, {cores} cores"


def show(shown: rich.table.Table, name: str, command: str, width: int) -> None:
    """Print the table of a benchmark; record it if the command line has `--record`.

    `width`: columns, if the output is no terminal.
    """
    Console(width=None if sys.stdout.isatty() else width).print(shown)
    if "--record" in sys.argv[1:]:
        record(name, command, shown)


def record(name: str, command: str, shown: rich.table.Table) -> None:
    """Record the table of a benchmark."""
    kept = [column for column in shown.columns if column.header not in _LEFT_OUT]
    columns = [str(column.header) for column in kept]
    rows = [list(row) for row in zip(*(map(str, column.cells) for column in kept), strict=True)]
    tables.write(name, Table(command, machine(), columns, rows))


def times() -> Table:
    """Return the training time and the latencies of the runs of the last `dvc repro`."""
    columns = {
        "training": "{train_seconds:.0f} s",
        "one image, median": "{latency_ms_p50:.2f} ms",
        "one image, p99": "{latency_ms_p99:.2f} ms",
        "256 images, median": "{batch_256_ms_p50:.1f} ms",
    }
    timings = json.loads((ROOT / paths.TIMINGS).read_bytes())
    rows = [[run, *(c.format(**found) for c in columns.values())] for run, found in timings.items()]
    return Table("dvc repro", machine(), ["run", *columns], rows)


def likelihood() -> Table:
    """Return how well the best run's bundle tells digits from other pictures."""
    best = json.loads((ROOT / paths.COMPARISON).read_bytes())["best"]
    found = json.loads((ROOT / paths.evaluation(best) / "metrics.json").read_bytes())["likelihood"]
    rows = [
        [
            kind if each["fitted"] else f"{kind} (not fitted to)",
            f"{each['auroc']:.3f}",
            f"{100 * each['refused']:.1f} %",
        ]
        for kind, each in found["nondigits"].items()
    ]
    rows += [
        [f"{kind} digits" if kind == "test" else kind, "", f"{100 * share:.1f} %"]
        for kind, share in found["refused_digits"].items()
    ]
    return Table("dvc repro", machine(), ["kind", "AUROC", "below the threshold"], rows)


TABLES: dict[str, Callable[[], Table]] = {"times": times, "likelihood": likelihood}
