"""Feedback store: true labels from users, with the model's input images, for retraining."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serve.models.image_format import DIGITS, ImageFormat, Label

# `request_id` is the request's id, a space and its owner, because callers may choose equal ids. In
# rows of older versions it is the id alone.
_TABLE = """
CREATE TABLE IF NOT EXISTS {table} (
    request_id TEXT PRIMARY KEY,
    label {label} NOT NULL,
    prediction {label} NOT NULL,
    model_version TEXT NOT NULL,
    image BLOB NOT NULL CHECK (length(image) = {size}),
    given_at TEXT NOT NULL
) STRICT
"""
_UPSERT = """
INSERT INTO {table} VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (request_id) DO UPDATE SET label = excluded.label, prediction = excluded.prediction,
    model_version = excluded.model_version, image = excluded.image, given_at = excluded.given_at
WHERE label != excluded.label OR image != excluded.image
"""
_COLUMNS = "request_id, label, prediction, model_version, image, given_at"
_PAGE = 4096  # bytes; what a database grows by
_MOST_PAGES = 16  # that one entry of a small image may add
# SQLite knows a full disk by ENOSPC from a write alone: else it says that it cannot write or open.
_UNWRITTEN = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)  # of the disk, in bytes or files; of the user's quota
NO_DIGIT = -1  # the label of a picture that is none of the classes
WAIT_SECONDS = 5.0  # for a locked database
_TRIES = 10  # attempts to read a file while a writer changes it


class UnknownRequestError(Exception):
    """The request id is unknown or too old, and the feedback has no image."""


class FeedbackFullError(Exception):
    """There is no room for more feedback; the message says whether on the disk or by the limit."""


class FeedbackBusyError(Exception):
    """Another process keeps the database locked."""

    def __init__(self) -> None:
        super().__init__("the feedback of others is being stored: try again in a second")


class Entry(NamedTuple):
    """One feedback: the model's input image, its prediction, and the true label or NO_DIGIT."""

    request_id: str
    label: Label
    prediction: Label
    model_version: str
    image: NDArray[np.uint8]
    given_at: str = ""  # when it was stored: UTC, ISO 8601
    owner: str = ""  # of the request, see RequestContext


class FeedbackStore:
    """A table in a SQLite file: one row per request, on the disk once `add` returns.

    Images of another size than the digits', or with other labels, have a table of their own.
    `max_bytes`: how large the file may grow. Where a method waits for the lock of another process,
    then until the time `until`, of `time.monotonic`; by default some seconds.
    """

    def __init__(self, path: Path, max_bytes: int = 2**40, images: ImageFormat = DIGITS) -> None:
        self._path, self._most, self._images = path, max_bytes // _PAGE, images
        digits = images == DIGITS
        self._table = "feedback" if digits else f"feedback_{images.name}_{images.digest}"
        # Text, and whole numbers that are labels, are kept as they are.
        label = "INTEGER" if digits else "ANY"
        self._pages = _MOST_PAGES + images.size // _PAGE
        self._created = _TABLE.format(table=self._table, label=label, size=images.size)
        self._upsert = _UPSERT.format(table=self._table)

    def add(self, entry: Entry, until: float | None = None) -> bool:
        """Store the entry; return True if that changed anything.

        Idempotent: a repeated entry changes nothing. The last entry of a request counts.

        Raises:
            FeedbackFullError: there is no room for it.
            FeedbackBusyError: the lock was not released in time.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        row = (_key(entry.request_id, entry.owner), *entry[1:4], entry.image.tobytes(), now)
        with self._connected(until) as connection, connection:
            return connection.execute(self._upsert, row).rowcount == 1

    def find(self, request_id: str, owner: str = "", until: float | None = None) -> Entry | None:
        """Return the entry of the owner's request, if there is one; errors as `add`."""
        key = _key(request_id, owner)
        with self._connected(until) as connection:
            return next(self._select(connection, "WHERE request_id = ?", key), None)

    def entries(self) -> list[Entry]:
        """Return all entries, the oldest first, for other programs than the one that adds.

        It writes nothing, not even beside the file. So the file may belong to another user, or be
        on a read-only disk. In a program that adds, it would release SQLite's locks: those of
        POSIX end when any descriptor of the file is closed.

        Raises:
            FileNotFoundError: there is no such file.
            sqlite3.DatabaseError: it is not such a database, or changes without a pause.
        """
        for _ in range(_TRIES):
            before = self._state()
            # No process has it open. SQLite would create a log and leave it behind.
            resting = before[0] and not before[1]
            uri = f"{self._path.absolute().as_uri()}?{'immutable=1' if resting else 'mode=ro'}"
            try:
                with closing(sqlite3.connect(uri, uri=True, timeout=20)) as connection:
                    found = list(self._select(connection, "ORDER BY given_at, request_id"))
            except sqlite3.DatabaseError:
                if self._state() == before:
                    raise
            else:
                if not resting or self._state() == before:
                    return found
        raise sqlite3.OperationalError(f"{self._path} changes without a pause")

    def _select(self, connection: sqlite3.Connection, clause: str, *values: str) -> Iterator[Entry]:
        query = f"SELECT {_COLUMNS} FROM {self._table} {clause}"  # noqa: S608 - all are ours
        for key, label, prediction, version, image, given_at in connection.execute(query, values):
            pixels = np.frombuffer(image, np.uint8).reshape(self._images.sides)
            request, _, owner = key.partition(" ")
            yield Entry(request, label, prediction, version, pixels, given_at, owner)

    def _state(self) -> tuple[bool, bool, int, int]:
        """Return whether it needs a write-ahead log, has one, and what changes with each write.

        A file of an older version needs one.
        """
        found = self._path.stat()
        log = self._path.with_name(f"{self._path.name}-wal")
        with self._path.open("rb") as file:
            needs_log = file.read(20)[18:] == b"\2\2"  # versions of the file's format
        return (needs_log, log.exists(), found.st_mtime_ns, found.st_size)

    @contextmanager
    def _connected(self, until: float | None) -> Iterator[sqlite3.Connection]:
        left = WAIT_SECONDS if until is None else max(0.0, until - time.monotonic())
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(sqlite3.connect(self._path, timeout=left)) as connection:
                (journal,) = connection.execute("PRAGMA journal_mode").fetchone()
                if journal == "wal":  # of an older version, has a mapped file: `allocated_files`
                    with suppress(sqlite3.OperationalError):  # in use; it stays as it is
                        connection.execute("PRAGMA journal_mode = DELETE")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute(f"PRAGMA max_page_count = {self._most}")
                connection.execute(self._created)
                yield connection
        except sqlite3.OperationalError as error:
            kind = error.sqlite_errorcode & 0xFF
            if kind == sqlite3.SQLITE_BUSY:
                raise FeedbackBusyError from error
            if kind == sqlite3.SQLITE_FULL or (kind in _UNWRITTEN and not self._has_room()):
                raise FeedbackFullError(self._reason()) from error
            raise

    def _has_room(self) -> bool:
        """Write as much as an entry and its journal beside the database; return whether it fits."""
        content = bytes((2 * self._pages + 1) * _PAGE)
        try:
            with TemporaryFile(dir=self._path.parent) as file:
                written = os.pwrite(file.fileno(), content, 0)
                os.fsync(file.fileno())  # a network's disk may say it only here
        except OSError as error:
            return error.errno not in _NO_ROOM
        return written == len(content)

    def _reason(self) -> str:
        """Return why there is no room."""
        size = self._path.stat().st_size if self._path.exists() else 0
        if size // _PAGE + self._pages > self._most:
            return f"no more feedback is stored: it has {self._most * _PAGE:,} bytes"
        return "no more feedback is stored: there is no space left on the disk or in its quota"


def _key(request_id: str, owner: str) -> str:
    return f"{request_id} {owner}" if owner else request_id
