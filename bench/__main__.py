"""Benchmarks of the pipeline, as ratios to named baselines: `make bench`.

Everything is measured in one run on the same machine, in turn, because machines differ and are
shared. Quote the ratios, not the seconds.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.table import Table

from docs.tools.recorded import show

ROOT = Path(__file__).parents[1]
PYTHON = sys.executable
REPEATS = 5  # of commands that take less than a second


def measure(folder: Path, *command: str) -> tuple[float, float]:
    """Run a command; return wall seconds and the peak memory of its largest process in MB."""
    environment = {
        **os.environ,
        "PATH": f"{Path(PYTHON).parent}:{os.environ['PATH']}",
        "MNIST_MIRROR": os.environ.get("MNIST_MIRROR", str(ROOT.parent / "shared" / "mnist")),
    }
    started = time.monotonic()
    with (folder / ".bench.log").open("a") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed: see {folder / '.bench.log'}")
    return time.monotonic() - started, usage.ru_maxrss / 1024


def rows(clone: Path) -> list[tuple[str, ...]]:
    """Measure everything in a fresh clone; return the rows of the table."""

    def seconds(*command: str, repeats: int = 1) -> float:
        return min(measure(clone, *command)[0] for _ in range(repeats))

    def stage(name: str, *overrides: str) -> float:
        return seconds(PYTHON, "-m", f"pipeline.{name}", *overrides)

    (clone / "dvc.lock").unlink(missing_ok=True)
    stage("fetch", "data=mnist")
    plain = seconds(PYTHON, str(ROOT / "bench" / "plain.py"), "data/raw/mnist")
    cold, memory = measure(clone, "dvc", "repro")
    status = seconds("dvc", "status", repeats=REPEATS)
    idle = seconds("dvc", "repro", repeats=REPEATS)
    preprocess = stage("preprocess", "data=mnist")
    settings = "run=1", "batch_size=120"
    job = seconds(PYTHON, "train.py", *settings)
    work = sum(stage(name, *settings) for name in ("train", "evaluate"))
    three = f"three models in plain Keras, {plain:.0f} s", f"{cold / plain:.2f}", "1.2"
    idling = f"`dvc status`, {status:.2f} s", f"{idle / status:.2f}", "1.5"
    by_hand = f"its stages train and evaluate by hand, {work:.0f} s", f"+{job - work:.0f} s"
    return [
        ("cold `dvc repro`, data local", f"{cold:.0f} s", *three),
        ("`dvc repro` with nothing to do", f"{idle:.2f} s", *idling),
        ("preprocess", f"{preprocess:.1f} s", "", "", "10 s"),
        ("a job of a sweep, run 1", f"{job:.0f} s", *by_hand, "+20 s"),
        ("peak memory of any stage", f"{memory:.0f} MB", "", "", "2000 MB"),
    ]


def main() -> None:
    """Measure what is committed and print one table."""
    clone = Path(tempfile.mkdtemp(prefix="bench-"))  # stays if a command fails, with its log
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    table = Table("what", "measured", "baseline", "ratio", "limit")
    for row in rows(clone):
        table.add_row(*row)
    show(table, "pipeline-costs", "make bench", width=110)
    shutil.rmtree(clone)


if __name__ == "__main__":
    main()
