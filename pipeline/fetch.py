"""Stage `fetch`: the files of a data set as published, decompressed, each with its SHA-256."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from pipeline.config import Config, Data, Feedback, Format, PipelineError, environment, paths, stage
from pipeline.data.dataset import read_idx
from pipeline.fetching.download import without_password
from pipeline.fetching.mirrors import MirrorError, Web, opened
from pipeline.storage.files import replacing, sha256

log = logging.getLogger(__name__)


def main(cfg: Config) -> None:
    """Completes the folder of raw files, and leaves nothing else in it."""
    folder = paths.raw(cfg.data.name)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        complete(folder, cfg.data)
        names = set(cfg.data.files)
        if cfg.data.feedback:
            names.add(add_feedback(folder, cfg.data.feedback))
        remove_others(folder, names)
    log.info("%s is complete", folder)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Says of an error on the disk how to mend it; what mirrors do are MirrorErrors by then."""
    try:
        yield
    except OSError as error:
        raise PipelineError(
            f"cannot write to {folder.absolute()}: {error.strerror}. It must be a folder that you "
            "may write to, on a disk with room for it: see `ls -ld` and `df -h`"
        ) from error


def complete(folder: Path, data: Data) -> None:
    """Fetches what is missing or wrong, each file from the first mirror that has it.

    Raises:
        PipelineError: no mirror has one of the files; the message has a line for each mirror.
    """
    wanted = [name for name in data.files if not is_right(folder / name, data)]
    web = Web(folder)
    tried = []
    for place in places(data):
        if not wanted:
            return
        wanted, reason = take(wanted, place, folder, data, web)
        if wanted:
            tried.append(without_password(f"{place}: {reason}"))
            log.info("%s", tried[-1])
    if wanted:
        head = f"could not get {', '.join(wanted)}; tried"
        raise PipelineError("\n".join([head, *(f"  {line}" for line in tried), way_out(data)]))


def add_feedback(folder: Path, feedback: Feedback) -> str:
    """Copies the export of feedback that the configuration names; returns the name of its file.

    Raises:
        PipelineError: there is none, or another one.
    """
    source, copy = environment.root() / paths.FEEDBACK, folder / paths.FEEDBACK.name
    export = "python -m pipeline.feedback <STATE_DIR>/feedback.db"
    if feedback.sha256 is None:
        raise PipelineError(f"no feedback of users is exported yet: {export}")
    for file in (copy, source):
        if file.exists() and sha256(file) == feedback.sha256:
            break
    else:
        raise PipelineError(
            f"{paths.FEEDBACK} is not there with the SHA-256 {feedback.sha256[:8]}… of the "
            f"configuration: dvc pull {paths.FEEDBACK}.dvc, or export it anew: {export}"
        )
    if file == source:
        with replacing(copy) as temporary:
            shutil.copyfile(source, temporary)
    return copy.name


def is_right(path: Path, data: Data) -> bool:
    """Whether the file is there with the configured content."""
    try:
        checked(path.name, data, path.read_bytes())
    except (OSError, MirrorError):
        return False
    log.info("%s: already there", path.name)
    return True


def places(data: Data) -> list[str]:
    """Where to look, in this order."""
    own = environment.mnist_mirror() if data.format is Format.idx else None
    return ([own] if own else []) + data.mirrors


def take(names: list[str], place: str, folder: Path, data: Data, web: Web) -> tuple[list[str], str]:
    """Fetches the files that the mirror has; returns the others, and why it has not got them."""
    failed: dict[str, MirrorError] = {}
    try:
        mirror = opened(place, web)
    except MirrorError as error:
        return names, str(error)
    for name in names:
        try:
            content = mirror(name, partial(checked, name, data))
        except MirrorError as error:
            failed[name] = error
            continue
        with replacing(folder / name) as temporary:
            temporary.write_bytes(content)
        log.info("%s: from %s", name, without_password(place))
    return list(failed), summary([str(error) for error in failed.values()])


def checked(name: str, data: Data, content: bytes) -> bytes:
    """The content, if it is what the configuration asks for.

    Raises:
        MirrorError: no IDX file where one is wanted, which tells more than a checksum, or another
            SHA-256.
    """
    if data.format is Format.idx:
        try:
            read_idx(content, name)
        except PipelineError as error:
            raise MirrorError(str(error)) from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != data.files[name]:
        raise MirrorError(f"{name}: SHA-256 is {digest[:8]}…, not {data.files[name][:8]}…")
    return content


def summary(reasons: list[str]) -> str:
    """The first reason, and how many files have others."""
    if len(set(reasons)) < 2:
        return "".join(reasons[:1])
    return f"{reasons[0]} (and {len(reasons) - 1} more of these files failed)"


def way_out(data: Data) -> str:
    """What to do when no mirror helps."""
    if data.format is not Format.idx:
        return f"Other places can be named under `mirrors` in conf/data/{data.name}.yaml."
    return (
        "Set MNIST_MIRROR=<folder or URL> to a place that has them, or do without a download: "
        "data=digits, or `make demo`."
    )


def remove_others(folder: Path, names: Collection[str]) -> None:
    """Deletes all but the named files: DVC tracks the folder, and history must not show in it."""
    for path in folder.iterdir():
        if path.name in names:
            continue
        log.info("%s: removed, it is no part of the data set", path)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


if __name__ == "__main__":
    stage(main)()
