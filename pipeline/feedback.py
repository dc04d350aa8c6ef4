"""Exports what users told the service, to train on: `python -m pipeline.feedback <database> …`.

A command, not a stage: feedback grows from one minute to the next, and what a model is trained on
must stay. The export is the file `data/feedback.npz`, which DVC tracks; its SHA-256 goes into
`conf/data/mnist_feedback.yaml`, so that Git says which feedback a commit stands for.
"""

from __future__ import annotations

import argparse
import logging
import re
import subprocess
from pathlib import Path

import numpy as np

from pipeline.config import PipelineError, cli, environment, paths
from pipeline.data.dataset import CLASSES
from pipeline.storage.files import replacing, sha256
from pipeline.user_feedback import databases, export_file
from pipeline.user_feedback.databases import Resolved
from pipeline.user_feedback.export_file import DATA

logger = logging.getLogger(__name__)

CONFIGURATION = Path(f"conf/data/{DATA}.yaml")


def main(arguments: list[str]) -> None:
    """Exports what the databases hold; the last step names the export, so that it is whole."""
    found = databases.resolve(databases.read(_options(arguments).database))
    logger.info("%s", summary(found))
    export_file.require(len(found.corrections), export_file.rules(), "can be used")

    root = environment.root()
    export_file.save(found.corrections, root / paths.FEEDBACK)
    track(root)
    digest = sha256(root / paths.FEEDBACK)
    changed = write_digest(root / CONFIGURATION, digest)
    logger.info("%s", _NEXT if changed else f"{paths.FEEDBACK} is what it was.")


_NEXT = f"""\
{paths.FEEDBACK} is exported, and {CONFIGURATION} names it.

Next:
  data: {DATA}          in params.yaml, then: dvc repro && python -m pipeline.register
  python train.py -m run=3 data={DATA}    the same as an experiment
  git add {CONFIGURATION} {paths.FEEDBACK}.dvc    to keep which feedback it was"""


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pipeline.feedback", description=__doc__)
    parser.add_argument(
        "database",
        nargs="+",
        type=Path,
        help="STATE_DIR/feedback.db of each replica of the service; they may be at work",
    )
    return parser.parse_args(arguments)


def summary(found: Resolved) -> str:
    """What comes in, and what does not and why."""
    images, labels = found.corrections
    counts = np.bincount(labels, minlength=CLASSES)
    dropped = {
        "of the same image again": found.repeated,
        "without a digit or a picture: dropped": found.unusable,
    }
    lines = [
        f"{found.told:,} requests with feedback",
        *(f"  {count:,} {why}" for why, count in dropped.items() if count),
    ]
    if found.disputed:
        lines.append(f"  {found.disputed:,} images that were told to be several digits: dropped")
    confirmed, corrected = found.confirmed, len(images) - found.confirmed
    lines += [
        f"{len(images):,} images: {confirmed:,} confirmed, {corrected:,} corrected",
        "  " + ", ".join(f"{digit}: {count:,}" for digit, count in enumerate(counts)),
    ]
    return "\n".join(lines)


def track(root: Path) -> None:
    """Puts the export into DVC's cache and its hash into the `.dvc` file beside it.

    Raises:
        PipelineError: DVC refuses; the message is its own.
    """
    done = subprocess.run(  # noqa: S603 - a list, no shell
        ["dvc", "add", str(paths.FEEDBACK)],  # noqa: S607 - of this environment
        cwd=root,
        env=environment.for_program(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise PipelineError(f"dvc add {paths.FEEDBACK}: {done.stderr.strip()}")


def write_digest(file: Path, digest: str) -> bool:
    """Names the export in the configuration, whose other lines stay; whether that changed it.

    Raises:
        PipelineError: there is no line for it, or several.
    """
    before = file.read_text()
    after, lines = re.subn(r"(?m)^(  sha256: )\S+", rf"\g<1>{digest}", before)
    if lines != 1:
        raise PipelineError(f"{file}: feedback must have one line `  sha256: …`")
    if after != before:
        with replacing(file) as temporary:
            temporary.write_text(after)
    return after != before


if __name__ == "__main__":
    cli.run(main)
