"""Trains anew if there is a reason to: `python -m pipeline.retrain --feedback <database> …`.

One command for people, cron and Kubernetes. It exports the feedback if there is enough of it, runs
the pipeline and registers the best run; the gates decide whether that becomes champion.
"""

from __future__ import annotations

import argparse
import logging
import re
import shlex
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from mlflow.entities.model_registry import ModelVersion

from pipeline.config import PARAMS, PipelineError, cli, environment, paths
from pipeline.data import dataset
from pipeline.registry import gates, mlflow_runs, retrain_triggers, versions
from pipeline.registry.retrain_triggers import Finding
from pipeline.registry.versions import CHAMPION
from pipeline.storage.files import replacing
from pipeline.storage.idx import read_idx
from pipeline.user_feedback import databases as replicas
from pipeline.user_feedback import export_file
from serve.prediction.feedback_store import Entry

logger = logging.getLogger(__name__)

_PICK = re.compile(r"(?m)^data: (\S+)")
_EXPORT = paths.FEEDBACK
# What says on which data a model is trained; the first three an export writes.
_CHANGED = (
    *(
        _EXPORT,
        _EXPORT.with_name(f"{_EXPORT.name}.dvc"),
        Path(f"conf/data/{export_file.DATA}.yaml"),
    ),
    PARAMS,
)


def main(arguments: list[str]) -> None:
    """Says which reasons there are, and acts on them."""
    options = _options(arguments)
    databases = list(begun(options.feedback))
    told = replicas.read(databases)
    champion = versions.aliased(mlflow_runs.connect(), gates.rules().model, CHAMPION)
    exported = enough(told)
    data = export_file.DATA if exported else picked(environment.root() / PARAMS)
    findings = list(_findings(champion, told, data, options))
    for finding in findings:
        logger.info("  %s  %s", "due" if finding.due else "ok ", finding.text)
    if not any(finding.due for finding in findings):
        logger.info("No reason to train anew.")
        return
    if exported and not options.check and not any(published()):
        run("dvc", "repro", "fetch")
        exported = enough(told)
    if champion and not exported and champion.tags.get("data") == export_file.DATA:
        # What would be trained now has not learnt from users, and the gates would not notice.
        logger.info(
            "The champion, version %s, was trained with feedback: nothing is trained without.",
            champion.version,
        )
        return
    if options.check:
        logger.info("A new model is due.")
        return
    with put_back(environment.root() / file for file in _CHANGED):
        if exported:
            run("python", "-m", "pipeline.feedback", *(str(path.absolute()) for path in databases))
            pick(environment.root() / PARAMS, export_file.DATA)
        run("dvc", "repro")
    run("python", "-m", "pipeline.register")


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pipeline.retrain", description=__doc__)
    parser.add_argument(
        "--feedback",
        nargs="+",
        default=[],
        type=Path,
        metavar="DATABASE",
        help="STATE_DIR/feedback.db of each replica of the service; they may be at work",
    )
    parser.add_argument(
        "--drift", type=Path, metavar="FILE", help="drift.json of python -m monitoring.drift"
    )
    parser.add_argument("--check", action="store_true", help="only say whether there is a reason")
    return parser.parse_args(arguments)


def begun(databases: list[Path]) -> Iterator[Path]:
    """Those that exist: the service makes its file with the first feedback, so before is no error.

    Raises:
        PipelineError: not even the folder exists, so the name is wrong.
    """
    for database in databases:
        if database.exists():
            yield database
        elif database.parent.is_dir():
            logger.info("%s is not there: no feedback yet", database)
        else:
            raise PipelineError(f"{database}: there is no folder {database.parent}")


def _findings(
    champion: ModelVersion | None, told: list[Entry], data: str, options: argparse.Namespace
) -> Iterator[Finding]:
    limits, now = retrain_triggers.limits(), datetime.now(UTC)
    news = champion is not None and unknown(champion, told, data)
    yield retrain_triggers.age(champion, limits.champion_days, now, news=news)
    if options.feedback:
        yield from retrain_triggers.feedback(told, champion, limits, now)
    if options.drift:
        yield retrain_triggers.drift(options.drift, champion, now)


def unknown(champion: ModelVersion, told: list[Entry], data: str) -> bool:
    """Whether the data set is another than the champion's, or holds feedback given since."""
    if champion.tags.get("data", data) != data:
        return True
    since = retrain_triggers.made(champion).isoformat(timespec="seconds")
    return data == export_file.DATA and any(entry.given_at >= since for entry in told)


def enough(told: list[Entry]) -> bool:
    """Whether there are as many new images of feedback as `preprocess` wants; says so if not.

    Without MNIST's files all pass for new.
    """
    images, least = replicas.merge(told).export.images, export_file.rules().least
    count = len(images) - len(known(images))
    if count < least:
        logger.info(
            "%d images of feedback, %d wanted (conf/data/%s.yaml; %d that MNIST has do not count): "
            "trained on what params.yaml picks. The same data, settings and code give the same "
            "model.",
            *(count, least, export_file.DATA, len(images) - count),
        )
    return count >= least


def published() -> Iterator[Path]:
    """The files of MNIST's images, of whichever data set they were fetched for."""
    for name in ("mnist", export_file.DATA):
        yield from (environment.root() / paths.raw(name)).glob("*-images-idx3-ubyte")


def known(images: dataset.Images) -> set[bytes]:
    """Those that MNIST has: no correction may be of the validation or test set."""
    told = {image.tobytes() for image in images}
    return {
        image
        for file in published()
        for image in map(np.ndarray.tobytes, read_idx(file.read_bytes(), file.name))
        if image in told
    }


def picked(file: Path) -> str:
    """The data set that `params.yaml` picks.

    Raises:
        PipelineError: there is no line for it.
    """
    lines = _PICK.findall(file.read_text())
    if len(lines) != 1:
        raise PipelineError(f"{file} must have one line `data: …`")
    return str(lines[0])


def pick(file: Path, data: str) -> None:
    """Writes the data set into `params.yaml`, whose other lines stay.

    Raises:
        PipelineError: there is no line for it.
    """
    if picked(file) != data:
        with replacing(file) as temporary:
            temporary.write_text(_PICK.sub(f"data: {data}", file.read_text()))
        logger.info("%s now picks data: %s", file.name, data)


@contextmanager
def put_back(files: Iterable[Path]) -> Iterator[None]:
    """Makes the files what they were if what is done meanwhile fails, so that it can be repeated.

    Those that were not there are removed.
    """
    before = {file: file.read_bytes() if file.exists() else None for file in files}
    try:
        yield
    except BaseException:  # Ctrl-C as well
        for file, content in before.items():
            if content is None:
                file.unlink(missing_ok=True)
            else:
                with replacing(file) as temporary:
                    temporary.write_bytes(content)
        logger.info("%s and the export of feedback are as they were.", PARAMS)
        raise


def run(*arguments: str) -> None:
    """Runs one step where it can be seen.

    Raises:
        PipelineError: it failed; what it printed says why.
    """
    typed = shlex.join(arguments)
    logger.info("\n$ %s", typed)
    done = subprocess.run(  # noqa: S603 - a list, no shell
        arguments, cwd=environment.root(), env=environment.for_program(), check=False
    )
    if done.returncode:
        raise PipelineError(f"`{typed}` failed with exit code {done.returncode}")


if __name__ == "__main__":
    cli.run(main)
