"""Exports users' feedback as training data: `python -m pipeline.feedback <database> …`.

A command, not a stage: feedback grows all the time, but training data must stay the same. The
export is `data/feedback.npz`, which DVC tracks. Its SHA-256 goes into
`conf/data/mnist_feedback.yaml`, so that a commit of Git names its feedback.
"""

import argparse
import logging
from pathlib import Path

from pipeline.config import cli, environment, paths
from pipeline.data.dataset import digit_counts
from pipeline.jobs import processes
from pipeline.storage.files import replace_value, sha256
from pipeline.user_feedback import databases, export_file
from pipeline.user_feedback.databases import Merged
from pipeline.user_feedback.export_file import DATA

logger = logging.getLogger(__name__)

CONFIGURATION = Path(f"conf/data/{DATA}.yaml")


def main(arguments: list[str]) -> None:
    """Export the databases' feedback; the configuration names the export last, once it is whole."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.feedback", description=__doc__)
    meaning = "STATE_DIR/feedback.db of each replica of the service, which may be running"
    parser.add_argument("database", nargs="+", type=Path, help=meaning)
    merged = databases.merge(databases.read(parser.parse_args(arguments).database))
    logger.info("%s", summary(merged))
    export_file.require(len(merged.export), export_file.rules(), "can be used")

    root = environment.root()
    export_file.save(merged.export, root / paths.FEEDBACK)
    # Into DVC's cache, and its hash into the `.dvc` file beside it.
    command = ["dvc", "add", str(paths.FEEDBACK)]
    processes.run(" ".join(command), command, root)
    digest = sha256(root / paths.FEEDBACK)
    changed = replace_value(root / CONFIGURATION, "  sha256: ", digest)
    logger.info("%s", _NEXT if changed else f"{paths.FEEDBACK} has not changed.")


_NEXT = f"""\
{paths.FEEDBACK} is exported, and {CONFIGURATION} names it.

Next:
  data: {DATA}          in params.yaml, then: dvc repro && python -m pipeline.register
  python train.py -m run=3 data={DATA}    the same as an experiment
  git add {CONFIGURATION} {paths.FEEDBACK}.dvc    to record which feedback it was"""


def summary(merged: Merged) -> str:
    """Return lines that count what is exported, and what is dropped and why."""
    labels = merged.export.labels
    dropped = {
        "requests repeat an image": merged.repeated,
        "requests with another label or an empty picture: dropped": merged.unusable,
        "images with several labels: dropped": merged.disputed,
    }
    corrected = len(labels) - merged.confirmed
    lines = [
        f"{merged.requests:,} requests with feedback",
        *(f"  {count:,} {why}" for why, count in dropped.items() if count),
        f"{len(labels):,} images: {merged.confirmed:,} confirmed, {corrected:,} corrected",
        "  " + ", ".join(f"{digit}: {count:,}" for digit, count in digit_counts(labels).items()),
    ]
    if none := len(merged.export.nondigits):
        lines.append(f"{none:,} images that are none of the digits")
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main)
