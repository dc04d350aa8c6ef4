"""Benchmarks of the pipeline, as ratios to named baselines: `make bench`.

Everything is measured in one run on the same machine, in turn, because machines differ and are
shared. Quote the ratios, not the seconds.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from omegaconf import OmegaConf
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


def module(folder: Path, name: str, *overrides: str) -> float:
    """Run a stage by hand; return wall seconds."""
    return measure(folder, PYTHON, "-m", f"pipeline.{name}", *overrides)[0]


def rows(clone: Path) -> list[tuple[str, ...]]:
    """Measure everything in a fresh clone; return the rows of the table."""
    (clone / "dvc.lock").unlink(missing_ok=True)
    module(clone, "fetch", "data=mnist")
    plain, _ = measure(clone, PYTHON, str(ROOT / "bench" / "plain.py"), "data/raw/mnist")
    recipe = float((clone / ".bench.log").read_text().split()[-1])
    cold, memory = measure(clone, "dvc", "repro")
    tuned = json.loads((clone / "reports" / "timings.json").read_bytes())["3"]["train_seconds"]
    epochs = OmegaConf.load(clone / "conf" / "run" / "3.yaml").epochs
    status = min(measure(clone, "dvc", "status")[0] for _ in range(REPEATS))
    idle = min(measure(clone, "dvc", "repro")[0] for _ in range(REPEATS))
    preprocess = module(clone, "preprocess", "data=mnist")
    settings = "run=1", "batch_size=120"
    job, _ = measure(clone, PYTHON, "train.py", *settings)
    work = sum(module(clone, stage, *settings) for stage in ("train", "evaluate"))
    return [
        (
            *("cold `dvc repro`, data local", f"{cold:.0f} s"),
            *(f"three models in plain Keras, {plain:.0f} s", f"{cold / plain:.2f}", "1.2"),
        ),
        (
            *("`dvc repro` with nothing to do", f"{idle:.2f} s"),
            *(f"`dvc status`, {status:.2f} s", f"{idle / status:.2f}", "1.5"),
        ),
        ("preprocess", f"{preprocess:.1f} s", "", "", "10 s"),
        (
            *(f"training of run 3, {epochs} epochs", f"{tuned:.0f} s"),
            f"its plain recipe, 5 epochs in plain Keras, {recipe:.0f} s",
            *(f"{tuned / recipe:.2f}", "1.0"),
        ),
        (
            *("a job of a sweep, run 1", f"{job:.0f} s"),
            f"its stages train and evaluate by hand, {work:.0f} s",
            *(f"+{job - work:.0f} s", "+20 s"),
        ),
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
