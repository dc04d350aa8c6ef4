"""Train a new model if there is a reason: `python -m pipeline.retrain --feedback <database> …`.

One command for people, cron and Kubernetes. It exports the feedback if there is enough of it, runs
the pipeline and registers the best run; the gates decide whether that becomes champion.
"""

import argparse
import logging
import shlex
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from mlflow.entities.model_registry import ModelVersion
from omegaconf import OmegaConf

from pipeline.config import PARAMS, PipelineError, cli, environment, paths
from pipeline.registry import gates, mlflow_runs, retrain_triggers, versions
from pipeline.registry.retrain_triggers import Finding
from pipeline.registry.versions import CHAMPION
from pipeline.storage.files import replace_value, write
from pipeline.storage.idx import read_idx
from pipeline.user_feedback import databases, export_file
from serve.prediction.feedback_store import Entry

logger = logging.getLogger(__name__)

# Files that say which data a model is trained on; `pipeline.feedback` writes the first three.
_CHANGED = (
    *(paths.FEEDBACK, paths.FEEDBACK.with_name(f"{paths.FEEDBACK.name}.dvc")),
    *(Path(f"conf/data/{export_file.DATA}.yaml"), PARAMS),
)


def main(arguments: list[str]) -> None:
    """Log the reasons for and against a new model, and act on them."""
    options = _options(arguments)
    files = list(existing(options.feedback))
    entries = databases.read(files)
    with_feedback = enough(entries)
    params = environment.root() / PARAMS
    data = export_file.DATA if with_feedback else str(OmegaConf.load(params).data)
    champion, model = None, gates.rules(data).model
    if model and mlflow_runs.store_exists():
        client = mlflow_runs.connect()
        champion = versions.aliased(client, model, CHAMPION)
    findings = list(_findings(champion, entries, data, options))
    for finding in findings:
        logger.info("  %s  %s", "due" if finding.due else "ok ", finding.text)
    if not any(finding.due for finding in findings):
        logger.info("There is no reason to train a new model.")
        return
    if with_feedback and not options.check and not any(mnist_files()):
        run("dvc", "repro", "fetch")
        with_feedback = enough(entries)
    if champion and not with_feedback and champion.tags.get("data") == export_file.DATA:
        # A model trained without feedback would replace it, and the gates would not notice.
        logger.info(
            "The champion, version %s, was trained with feedback: no model is trained without.",
            champion.version,
        )
        return
    if options.check:
        logger.info("A new model is due.")
        return
    with restored_on_failure(environment.root() / file for file in _CHANGED):
        if with_feedback:
            run("python", "-m", "pipeline.feedback", *(str(file.absolute()) for file in files))
            if replace_value(params, "data: ", export_file.DATA):
                logger.info("%s now has data: %s", PARAMS, export_file.DATA)
        run("dvc", "repro")
    run("python", "-m", "pipeline.register")


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.retrain", description=__doc__, allow_abbrev=False
    )
    parser.add_argument(
        "--feedback",
        nargs="+",
        default=[],
        type=Path,
        metavar="DATABASE",
        help="STATE_DIR/feedback.db of each replica of the service, which may be running",
    )
    parser.add_argument(
        "--drift", type=Path, metavar="FILE", help="drift.json of python -m monitoring.drift"
    )
    parser.add_argument("--check", action="store_true", help="only say whether there is a reason")
    return parser.parse_args(arguments)


def existing(files: list[Path]) -> Iterator[Path]:
    """Yield the databases that exist: the service creates its own with the first feedback."""
    for file in files:
        if file.exists():
            yield file
        elif file.parent.is_dir():
            logger.info("%s does not exist: no feedback yet", file)
        else:
            raise PipelineError(f"--feedback {file}: there is no folder {file.parent}")


def _findings(
    champion: ModelVersion | None, entries: list[Entry], data: str, options: argparse.Namespace
) -> Iterator[Finding]:
    limits, now = retrain_triggers.limits(), datetime.now(UTC)
    news = champion is not None and has_news(champion, entries, data)
    yield retrain_triggers.age(champion, limits.champion_days, now, news=news)
    if options.feedback:
        yield from retrain_triggers.feedback(entries, champion, limits, now)
    if options.drift:
        yield retrain_triggers.drift(options.drift, champion, now)


def has_news(champion: ModelVersion, entries: list[Entry], data: str) -> bool:
    """Return whether the data set is not the champion's, or has feedback given since then."""
    if champion.tags.get("data", data) != data:
        return True
    since = retrain_triggers.registered_at(champion).isoformat(timespec="seconds")
    return data == export_file.DATA and any(entry.given_at >= since for entry in entries)


def enough(entries: list[Entry]) -> bool:
    """Return whether there are as many new images of feedback as `preprocess` wants; log if not.

    Images that MNIST has do not count: no correction may be in the validation or test set. Before
    MNIST's files are fetched, all count.
    """
    images = {image.tobytes() for image in databases.merge(entries).export.images}
    new = set(images)
    for file in mnist_files():
        new -= set(map(np.ndarray.tobytes, read_idx(file.read_bytes(), file.name)))
    least = export_file.rules().least
    if len(new) < least:
        logger.info(
            "%d images of feedback, %d wanted (conf/data/%s.yaml; %d that MNIST has do not count): "
            "the data set of params.yaml is used. The same data, settings and code give the same "
            "model.",
            *(len(new), least, export_file.DATA, len(images) - len(new)),
        )
    return len(new) >= least


def mnist_files() -> Iterator[Path]:
    """Yield the files of MNIST's images, for whichever data set they were fetched."""
    for name in ("mnist", export_file.DATA):
        yield from (environment.root() / paths.raw(name)).glob("*-images-idx3-ubyte")


@contextmanager
def restored_on_failure(files: Iterable[Path]) -> Iterator[None]:
    """Restore the files if the block fails, so that it can be repeated; remove new ones."""
    before = {file: file.read_bytes() if file.exists() else None for file in files}
    try:
        yield
    except BaseException:  # Ctrl-C as well
        for file, content in before.items():
            if content is None:
                file.unlink(missing_ok=True)
            else:
                write(file, content)
        logger.info("%s and the export of feedback are restored.", PARAMS)
        raise


def run(*arguments: str) -> None:
    """Run one step, whose output goes to the terminal; PipelineError if it fails."""
    command = shlex.join(arguments)
    logger.info("\n$ %s", command)
    done = subprocess.run(  # noqa: S603 - a list, no shell
        arguments, cwd=environment.root(), env=environment.for_program(), check=False
    )
    if done.returncode:
        raise PipelineError(f"`{command}` failed with exit code {done.returncode}")


if __name__ == "__main__":
    cli.run(main)
