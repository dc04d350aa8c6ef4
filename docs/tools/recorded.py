"""Measured tables: recorded on request, because every machine measures something else."""

import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath

import rich.table
from rich.console import Console

from docs.tools import tables
from docs.tools.tables import ROOT, Table
from pipeline.archives.sources import Read
from pipeline.config import paths
from pipeline.scoring import field, pictures
from pipeline.scoring.scored import score
from serve.models.predictor import Predictor

# Columns of a benchmark that hold a limit or an uncertainty, not a result.
_LEFT_OUT = ("limit", "lowest, highest round")
# Pictures of other people, for judging only: `omniglot/` and `field/`, as in conf/register.yaml.
HANDS = ROOT.parent / "shared"
# Of the Latin letters a to z, those that are digits to the eye: b g i l o q s z.
_LIKE_DIGITS = {f"character{1 + ord(letter) - ord('a'):02}" for letter in "bgiloqsz"}


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


def handwritten() -> Table:
    """Return the shares of handwritten letters and digits that the champion flags or refuses.

    The letters are Omniglot's (Lake et al. 2015), `<alphabet>/<character>/*.png` in a zip.
    """
    predictor, rows = Predictor(ROOT / paths.CHAMPION), []

    def add(kind: str, names: Sequence[str], read: Read) -> None:
        found = score(names, read, predictor).table
        refused = found["detail"].notna()
        shares = [refused.mean(), (refused | found["not_digit"].fillna(False)).mean()]
        rows.append([kind, f"{len(names):,}", *(f"{100 * share:.1f} %" for share in shares)])

    with pictures.opened(HANDS / "omniglot" / "images_background_small2.zip") as (names, read):
        parts = {name: PurePath(name).parts for name in names if name.endswith(".png")}
        for alphabet in sorted({each[-3] for each in parts.values()}):
            some = [name for name, each in parts.items() if each[-3] == alphabet]
            if alphabet == "Latin":
                some = [name for name in some if parts[name][-2] not in _LIKE_DIGITS]
            add(f"letters: {alphabet}", some, read)
    for source in field.sources_in(HANDS / "field"):
        with pictures.opened(source) as (names, read):
            labelled = [name for name in names if PurePath(name).parent.name.isdigit()]
            add(f"digits: {source.stem}", labelled, read)
    command = "python -m docs.tools --record handwritten"
    return Table(command, machine(), ["kind", "pictures", "refused", "flagged or refused"], rows)


TABLES: dict[str, Callable[[], Table]] = {
    **{"times": times, "likelihood": likelihood, "handwritten": handwritten}
}
