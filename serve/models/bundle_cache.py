"""Bundle cache: model bundles on disk, and the pointer that names the version in service.

The puller fills the cache, and every worker watches it. The pointer and the status are written
atomically. A bundle gets its final name only after it is verified.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import TypeAdapter, ValidationError

from serve.models.predictor import FILES, BundleError, each_precision
from serve.settings import Settings
from serve.sources import Source

logger = logging.getLogger(__name__)

MAX_CLASSES = 256  # recent answers keep the place of a class in a byte
CARDS = ("model_card.md", "README.md")  # the model card; README.md in bundles of before
# Files of a bundle. Other files beside them are not copied.
_FILES = (*FILES.values(), "likelihood.tflite", "model.json", *CARDS, "reference.npz")
_UNKNOWN = "STATE_DIR cannot be written, so it is unknown whether the model is the newest"
INCOMING = ".incoming-"  # prefix of folders that are being filled


class Release(NamedTuple):
    """A bundle in the cache: the name of its folder, and the version that answers carry."""

    folder: str
    version: str


class Pointer(NamedTuple):
    """The release in service, and the one before it."""

    current: Release
    previous: Release | None


class BundleCache:
    """The folder of bundles of one source, such as a registry's alias.

    Bundles that another source left in the folder are never served.
    """

    def __init__(self, folder: Path, source: str) -> None:
        self.folder = folder
        self._source = hashlib.sha256(source.encode()).hexdigest()
        self._pointer = folder / "current.json"
        self._status = folder / "status.json"
        self._checked = folder / f"checked-{self._source[:12]}"

    def pointer(self) -> Pointer | None:
        """Return the pointer; None if it is missing, unreadable or of another source."""
        content = self._read(self._pointer)
        try:
            return TypeAdapter(Pointer).validate_python(content) if content else None
        except ValidationError as error:  # another version of this code wrote it
            logger.warning("%s is not as expected and counts as absent: %s", self._pointer, error)
            return None

    def failure(self) -> str:
        """Return why the latest attempt to follow the source failed; empty after a success."""
        if self._status.exists() and not self._status.stat().st_size:
            return _UNKNOWN
        return str(self._read(self._status).get("failure", ""))

    def checked(self) -> float:
        """Return when the source was last followed, in seconds since 1970; 0 if it never was."""
        return self._checked.stat().st_mtime if self._checked.exists() else 0.0

    def set_checked(self) -> None:
        """Record that the source was followed just now; this needs no space on the disk."""
        self._checked.touch()

    def is_intact(self, release: Release) -> bool:
        """Return whether the release can be served; a crash or a full disk may corrupt it."""
        try:
            verify_bundle(self.path(release))
        except BundleError as error:
            logger.warning("the cached version %s is corrupt: %s", release.version, error)
            return False
        return True

    def stamp(self) -> list[tuple[int, int]]:
        """Return modification times (ns) and inodes, which change with the pointer or the status.

        It is cheap enough to poll.
        """
        found = [path.stat() for path in (self._pointer, self._status) if path.exists()]
        return [(stat.st_mtime_ns, stat.st_ino) for stat in found]

    def path(self, release: Release) -> Path:
        """Return the bundle's folder."""
        return self.folder / release.folder

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the cache for a change, and remove the unfinished folders of a dead holder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            for unfinished in self.folder.glob(f"{INCOMING}*"):  # left by a holder that died
                shutil.rmtree(unfinished, ignore_errors=True)
            yield

    def add(self, release: Release, bundle: Path, made: float) -> None:
        """Copy a bundle from another folder, verify it and put it into service.

        `made`: modification time of its files, in seconds since 1970. A BundleError says why the
        bundle cannot predict; the release in service then stays.
        """
        incoming = Path(tempfile.mkdtemp(prefix=INCOMING, dir=self.folder))
        try:
            for name in _FILES:
                if (bundle / name).exists():
                    shutil.copyfile(bundle / name, incoming / name)
                    os.utime(incoming / name, (made, made))
            verify_bundle(incoming)
            for path in (*incoming.iterdir(), incoming):
                _sync(path)
            shutil.rmtree(self.path(release), ignore_errors=True)
            os.replace(incoming, self.path(release))
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
        _sync(self.folder)
        self.publish(release)

    def publish(self, release: Release) -> None:
        """Put an intact release of the cache into service."""
        present = self.pointer()
        previous = present and (present.previous if present.current == release else present.current)
        self._write(
            self._pointer,
            {"current": release._asdict(), "previous": previous and previous._asdict()},
        )
        keep = {release.folder, previous.folder if previous else ""}
        for entry in self.folder.iterdir():
            if entry.is_dir() and entry.name not in keep:
                shutil.rmtree(entry, ignore_errors=True)

    def set_failure(self, failure: str) -> None:
        """Record why the source cannot be followed; an empty text records success.

        On a full disk it leaves an empty status, which is a failure too.
        """
        if failure == self.failure() and self._status.exists():
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write(self._status, {"failure": failure})
        except OSError as error:
            logger.error("%s cannot be written: %s", self._status, error)
            with suppress(OSError):
                self._status.write_bytes(b"")

    def _read(self, path: Path) -> dict[str, Any]:
        """Return the file's content; empty if it is missing, unreadable or of another source."""
        with suppress(OSError, ValueError):
            content = json.loads(path.read_bytes())
            if isinstance(content, dict) and content.pop("source", None) == self._source:
                return content
        return {}

    def _write(self, path: Path, content: dict[str, Any]) -> None:
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            temporary.write_text(json.dumps({"source": self._source, **content}))
            _sync(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync(self.folder)


def verify_bundle(bundle: Path) -> None:
    """Load each model of the bundle and predict a blank image, as a smoke test.

    Raises:
        BundleError: it cannot be loaded, or its output is not a distribution over its classes, or
            its likelihood is not from 0 to 1.
    """
    try:
        predictors = each_precision(bundle)
        blank = np.zeros((1, *predictors[0].preparation.shape), np.uint8)
        answers = [predictor.probabilities(blank) for predictor in predictors]
        likelihoods = predictors[0].likelihoods(blank)
    except (OSError, RuntimeError, ValueError) as error:  # from reading the files, or from LiteRT
        raise BundleError(f"{bundle.name}: the model cannot answer: {error}") from error
    if len(predictors[0].classes) > MAX_CLASSES:
        raise BundleError(f"{bundle.name}: it has more than {MAX_CLASSES} classes")
    for probabilities in answers:
        if not np.isclose(probabilities.sum(), 1, atol=1e-3):
            raise BundleError(f"{bundle.name}: the answer is no distribution over the classes")
    if predictors[0].likelihood and not 0 <= likelihoods[0] <= 1:
        raise BundleError(f"{bundle.name}: the likelihood is not from 0 to 1")


def digest_files(bundle: Path) -> str:
    """Return a digest of all files that `BundleCache.add` copies; an OSError if one is unread."""
    found = [(name, bundle / name) for name in _FILES if (bundle / name).exists()]
    digests = [f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for name, path in found]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def name_release(version: str, identity: str) -> Release:
    """Return a release; equal version numbers with other content have other folders."""
    clean = re.sub(r"[^\w.-]", "_", version)[:40]
    return Release(f"{clean}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}", version)


def _sync(path: Path) -> None:
    """Call fsync: wait until the file, or the names in the folder, are on the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def open_cache(settings: Settings, source: Source) -> BundleCache:
    """Return the cache for one of the sources that these settings name."""
    where = f"{settings.mlflow_tracking_uri} {source.uri}"
    if not source.registered:
        where = str(Path(source.uri).resolve())
    return BundleCache(source.state / "models", where)
