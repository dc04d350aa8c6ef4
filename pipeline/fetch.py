"""Stage `fetch`: the files of a data set as published, decompressed, checked by SHA-256."""

import logging
import shutil
from collections.abc import Collection
from pathlib import Path

from pipeline.config import Config, PipelineError, environment, paths, stage
from pipeline.config.data_schema import Data, Feedback, Format
from pipeline.fetching import download
from pipeline.storage.files import sha256, write

log = logging.getLogger(__name__)


def main(cfg: Config) -> None:
    """Complete `data/raw/<data>/`, and leave nothing else in it; PipelineError if it cannot."""
    folder = paths.raw(cfg.data.name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        own = environment.mnist_mirror() if _is_mnist(cfg.data) else None
        mirrors = [own, *cfg.data.mirrors] if own else cfg.data.mirrors
        download.complete(folder, cfg.data.files, mirrors)
        names = set(cfg.data.files)
        if cfg.data.feedback:
            names.add(add_feedback(folder, cfg.data.feedback))
        remove_others(folder, names)
    except download.MirrorError as error:
        raise PipelineError(f"{error}\n{_way_out(cfg.data)}") from None
    except OSError as error:
        raise PipelineError(
            f"cannot write to {folder.absolute()}: {error.strerror or error}. It must be a folder "
            "that you may write to, on a disk with room for it: see `ls -ld` and `df -h`"
        ) from error
    log.info("%s is complete", folder)


def _is_mnist(data: Data) -> bool:
    """Return whether the files are MNIST's, by what they hold."""
    return data.digits and data.format is Format.idx


def _way_out(data: Data) -> str:
    """Say what to do when no mirror helps."""
    if data.format is Format.folder:
        return (
            f"Name other places under `mirrors` in conf/data/{data.name}.yaml. If pictures have "
            f"changed: python -m pipeline.new_data {data.name} PATH --force"
        )
    if not _is_mnist(data):
        return f"Other places can be named under `mirrors` in conf/data/{data.name}.yaml."
    return (
        "Set MNIST_MIRROR=<folder or URL> to a place that has them, or do without a download: "
        "data=digits, or `make demo`."
    )


def add_feedback(folder: Path, feedback: Feedback) -> str:
    """Copy the export of feedback that the configuration names; return its file's name."""
    source, copy = environment.root() / paths.FEEDBACK, folder / paths.FEEDBACK.name
    export = "python -m pipeline.feedback <STATE_DIR>/feedback.db"
    if feedback.sha256 is None:
        raise PipelineError(f"no feedback of users is exported yet: {export}")
    right = [file for file in (copy, source) if file.exists() and sha256(file) == feedback.sha256]
    if not right:
        raise PipelineError(
            f"{paths.FEEDBACK} is missing, or its SHA-256 is not {feedback.sha256[:8]}… as the "
            f"configuration says: dvc pull {paths.FEEDBACK}.dvc, or export it again: {export}"
        )
    if copy not in right:
        write(copy, source.read_bytes())
    return copy.name


def remove_others(folder: Path, names: Collection[str]) -> None:
    """Delete all but the named files: DVC hashes the folder, which must not depend on history."""
    for path in folder.iterdir():
        if path.name in names:
            continue
        log.info("%s: removed, because it is not part of the data set", path)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


if __name__ == "__main__":
    stage(main)()
