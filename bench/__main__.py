"""Times and sizes of the pipeline as ratios against named baselines: `make bench`.

Everything is measured in the same run on the same machine, in turn, because machines differ and
are shared: quote the ratios, not the seconds.
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

from bench.shown import show

ROOT = Path(__file__).parents[1]
PYTHON = Path(sys.executable)


def measured(command: list[str], folder: Path) -> tuple[float, float]:
    """Wall seconds, and peak memory in MB of the largest process that the command started."""
    environment = {
        **os.environ,
        "PATH": f"{PYTHON.parent}:{os.environ['PATH']}",
        "MNIST_MIRROR": os.environ.get("MNIST_MIRROR", str(ROOT.parent / "shared" / "mnist")),
    }
    started = time.monotonic()
    with (folder / ".bench.log").open("a") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed: see {folder / '.bench.log'}")
    return time.monotonic() - started, usage.ru_maxrss / 1024


def main() -> None:
    """Measures what is committed, one after another, and prints one table."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    clone = folder / "clone"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    (clone / "dvc.lock").unlink(missing_ok=True)
    measured([str(PYTHON), "-m", "pipeline.fetch", "data=mnist"], clone)

    plain, _ = measured([str(PYTHON), str(ROOT / "bench" / "plain.py"), "data/raw/mnist"], clone)
    recipe = float((clone / ".bench.log").read_text().split()[-1])
    cold, memory = measured(["dvc", "repro"], clone)
    tuned = json.loads((clone / "reports" / "timings.json").read_bytes())["3"]["train_seconds"]
    epochs = OmegaConf.load(clone / "conf" / "run" / "3.yaml").epochs
    status = min(measured(["dvc", "status"], clone)[0] for _ in range(5))
    idle = min(measured(["dvc", "repro"], clone)[0] for _ in range(5))
    preprocess, _ = measured([str(PYTHON), "-m", "pipeline.preprocess", "data=mnist"], clone)
    job, _ = measured([str(PYTHON), "train.py", "run=1", "batch_size=120"], clone)
    work = sum(
        measured([str(PYTHON), "-m", f"pipeline.{stage}", "run=1", "batch_size=120"], clone)[0]
        for stage in ("train", "evaluate")
    )
    dropout = subprocess.run(
        [PYTHON, "-m", "bench.dropout"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )

    table = Table("what", "measured", "baseline", "ratio", "limit")
    table.add_row(
        "cold `dvc repro`, data local",
        f"{cold:.0f} s",
        f"three models in plain Keras, {plain:.0f} s",
        f"{cold / plain:.2f}",
        "1.2",
    )
    table.add_row(
        "`dvc repro` with nothing to do",
        f"{idle:.2f} s",
        f"`dvc status`, {status:.2f} s",
        f"{idle / status:.2f}",
        "1.5",
    )
    table.add_row("preprocess", f"{preprocess:.1f} s", "", "", "10 s")
    table.add_row(
        f"training of run 3, {epochs} epochs",
        f"{tuned:.0f} s",
        f"its plain recipe, 5 epochs in plain Keras, {recipe:.0f} s",
        f"{tuned / recipe:.2f}",
        "1.0",
    )
    table.add_row(
        "a job of a sweep, run 1",
        f"{job:.0f} s",
        f"its stages train and evaluate by hand, {work:.0f} s",
        f"+{job - work:.0f} s",
        "+20 s",
    )
    table.add_row("peak memory of any stage", f"{memory:.0f} MB", "", "", "2000 MB")
    ours, keras = map(float, dropout.stdout.split())
    table.add_row(
        "training step of run 2",
        f"{ours * 1000:.1f} ms",
        f"with Keras' dropout, {keras * 1000:.1f} ms",
        f"{ours / keras:.2f}",
        "",
    )
    show(table, "pipeline-costs", "make bench", width=110)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
