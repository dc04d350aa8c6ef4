"""The cache of model bundles on disk, and the pointer that says which are in service.

The puller fills it, every worker watches it. The pointer and the status are whole or not there,
and a bundle is under its final name only once it is verified.
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

from serve.models.predictor import BundleError, Predictor
from serve.settings import Settings

logger = logging.getLogger(__name__)

_UNFINISHED = (".incoming-*", "model-*")  # folders of this module, and of the puller's downloads


class Release(NamedTuple):
    """A bundle in the cache: the name of its folder, and the version that answers carry."""

    folder: str
    version: str


class Pointer(NamedTuple):
    """What is in service."""

    current: Release
    previous: Release | None


class Stamp(NamedTuple):
    """Changes whenever the pointer or the status changes."""

    pointer: tuple[int, int]
    status: tuple[int, int]


class BundleCache:
    """The folder of bundles of one source, such as a registry's alias.

    What another source left in it is never served.
    """

    def __init__(self, folder: Path, source: str) -> None:
        self.folder = folder
        self._source = hashlib.sha256(source.encode()).hexdigest()
        self._pointer = folder / "current.json"
        self._status = folder / "status.json"

    def pointer(self) -> Pointer | None:
        """What is in service, if anything of this source is and this code can read it."""
        content = _json(self._pointer)
        if content.get("source") != self._source:
            return None
        try:
            current, previous = content["current"], content["previous"]
            return Pointer(_release(current), _release(previous) if previous else None)
        except (KeyError, TypeError) as error:  # another version of this code wrote it
            logger.warning("%s is not as expected and counts as absent: %r", self._pointer, error)
            return None

    def failure(self) -> str:
        """Why the latest attempt to follow the source failed; empty if it did not."""
        content = _json(self._status)
        return str(content.get("failure", "")) if content.get("source") == self._source else ""

    def is_intact(self, release: Release) -> bool:
        """Whether the release's files are whole: a crash or a full disk may have spoilt them."""
        try:
            verify_bundle(self.path(release))
        except BundleError as error:
            logger.warning("the cached version %s is spoilt: %s", release.version, error)
            return False
        return True

    def stamp(self) -> Stamp:
        """Cheap enough to ask several times a second."""
        return Stamp(_stamp(self._pointer), _stamp(self._status))

    def path(self, release: Release) -> Path:
        """The bundle's folder."""
        return self.folder / release.folder

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held while the cache changes: what is unfinished belongs to the holder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            for unfinished in _UNFINISHED:  # of a holder that died
                for folder in self.folder.glob(unfinished):
                    shutil.rmtree(folder, ignore_errors=True)
            yield

    def temporary(self) -> Path:
        """An empty folder to download into; `publish` takes it over."""
        return Path(tempfile.mkdtemp(prefix=".incoming-", dir=self.folder))

    def publish(self, release: Release, incoming: Path | None = None) -> None:
        """Puts the release into service; `incoming` is the folder of its files if they are new.

        Raises:
            BundleError: it is not a bundle that answers; what was in service stays.
        """
        verify_bundle(incoming or self.path(release))
        if incoming:
            incoming.chmod(0o755)
            for path in (*incoming.iterdir(), incoming):
                _sync(path)
            shutil.rmtree(self.path(release), ignore_errors=True)
            os.replace(incoming, self.path(release))
            _sync(self.folder)
        present = self.pointer()
        if present and present.current != release:
            previous: Release | None = present.current
        else:
            previous = present.previous if present else None
        self._write(
            self._pointer,
            {"current": release._asdict(), "previous": previous._asdict() if previous else None},
        )
        self._prune(keep={release.folder, previous.folder if previous else ""})

    def set_failure(self, failure: str) -> None:
        """Records why the source cannot be followed, or with an empty text that it can."""
        if failure != self.failure() or not self._status.exists():
            self._write(self._status, {"failure": failure})

    def _write(self, path: Path, content: dict[str, Any]) -> None:
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps({"source": self._source, **content}))
        _sync(temporary)
        os.replace(temporary, path)
        _sync(self.folder)

    def _prune(self, keep: set[str]) -> None:
        for entry in self.folder.iterdir():
            if entry.is_dir() and entry.name not in keep:
                shutil.rmtree(entry, ignore_errors=True)


def verify_bundle(bundle: Path) -> None:
    """Loads the bundle and lets it answer once.

    Raises:
        BundleError: it cannot be loaded, or its answer is no distribution over ten digits, or no
            likelihood.
    """
    try:
        predictor, blank = Predictor(bundle), np.zeros((1, 28, 28), np.uint8)
        probabilities, likelihoods = predictor.probabilities(blank), predictor.likelihoods(blank)
    except (OSError, RuntimeError, ValueError) as error:  # of the files, or of LiteRT
        raise BundleError(f"{bundle.name}: the model cannot answer: {error}") from error
    if probabilities.shape != (1, 10) or not np.isclose(probabilities.sum(), 1, atol=1e-3):
        raise BundleError(f"{bundle.name}: the answer is no distribution over ten digits")
    if predictor.likelihood and not 0 <= likelihoods[0] <= 1:
        raise BundleError(f"{bundle.name}: the likelihood of a digit is not from 0 to 1")


def folder_name(version: str, identity: str) -> str:
    """A name for the version's folder; versions of one number but other content differ."""
    clean = re.sub(r"[^\w.-]", "_", version)[:40]
    return f"{clean}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


def _release(content: dict[str, Any]) -> Release:
    release = Release(**content)
    if not all(isinstance(value, str) for value in release):
        raise TypeError(f"{release} is not of strings")
    return release


def _json(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        content = json.loads(path.read_bytes())
        if isinstance(content, dict):
            return content
    return {}


def _sync(path: Path) -> None:
    """Waits until the file, or the names in the folder, are on the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return (0, 0)
    return (stat.st_mtime_ns, stat.st_ino)


def open_cache(settings: Settings) -> BundleCache:
    """The cache of what these settings say to serve."""
    if settings.registered:
        return BundleCache(
            settings.models_dir, f"{settings.mlflow_tracking_uri} {settings.model_uri}"
        )
    return BundleCache(settings.models_dir, str(Path(settings.model_uri).resolve()))
