"""Feedback store: true digits from users, with the model's input images, for retraining."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serve.imaging.placement import SIDE

_TABLE = """
CREATE TABLE IF NOT EXISTS feedback (
    request_id TEXT PRIMARY KEY,
    label INTEGER NOT NULL,
    prediction INTEGER NOT NULL,
    model_version TEXT NOT NULL,
    image BLOB NOT NULL CHECK (length(image) = 784),
    given_at TEXT NOT NULL
) STRICT
"""
_UPSERT = """
INSERT INTO feedback VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (request_id) DO UPDATE SET label = excluded.label, prediction = excluded.prediction,
    model_version = excluded.model_version, image = excluded.image, given_at = excluded.given_at
WHERE label != excluded.label OR image != excluded.image
"""
_COLUMNS = "request_id, label, prediction, model_version, image, given_at"
_TRIES = 10  # attempts to read a file while a writer changes it


class UnknownRequestError(Exception):
    """The request id is unknown or too old, and the feedback has no image."""


class Entry(NamedTuple):
    """One feedback: the model's input image, its prediction and the true digit (`label`)."""

    request_id: str
    label: int
    prediction: int
    model_version: str
    image: NDArray[np.uint8]  # (28, 28)
    given_at: str = ""  # when it was stored: UTC, ISO 8601


class FeedbackStore:
    """A table in a SQLite file: one row per request, on the disk once `add` returns."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, entry: Entry) -> bool:
        """Store the entry; return True if that changed anything.

        Idempotent: a repeated entry changes nothing. The last entry of a request counts.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        row = (*entry[:4], entry.image.tobytes(), now)
        with self._connected() as connection, connection:
            return connection.execute(_UPSERT, row).rowcount == 1

    def find(self, request_id: str) -> Entry | None:
        """Return the entry of the request, if there is one."""
        with self._connected() as connection:
            return next(_select(connection, "WHERE request_id = ?", request_id), None)

    def entries(self) -> list[Entry]:
        """Return all entries, the oldest first, for other programs than the one that adds.

        It writes nothing, not even beside the file. So the file may belong to another user, or be
        on a read-only disk.

        Raises:
            FileNotFoundError: there is no such file.
            sqlite3.DatabaseError: it is not such a database, or changes without a pause.
        """
        for _ in range(_TRIES):
            before = self._state()
            has_log = before[0]
            # Without a log no process has it open; SQLite would create one and leave it behind.
            mode = "mode=ro" if has_log else "immutable=1"
            uri = f"{self._path.absolute().as_uri()}?{mode}"
            try:
                with closing(sqlite3.connect(uri, uri=True, timeout=20)) as connection:
                    found = list(_select(connection, "ORDER BY given_at, request_id"))
            except sqlite3.DatabaseError:
                if self._state() == before:
                    raise
            else:
                if has_log or self._state() == before:
                    return found
        raise sqlite3.OperationalError(f"{self._path} changes without a pause")

    def _state(self) -> tuple[bool, int, int]:
        """Return whether the file has a write-ahead log, and what changes with each write."""
        found = self._path.stat()
        log = self._path.with_name(f"{self._path.name}-wal")
        return (log.exists(), found.st_mtime_ns, found.st_size)

    def _connected(self) -> closing[sqlite3.Connection]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=20)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(_TABLE)
        return closing(connection)


def _select(connection: sqlite3.Connection, clause: str, *values: str) -> Iterator[Entry]:
    query = f"SELECT {_COLUMNS} FROM feedback {clause}"  # noqa: S608 - both are constants
    for request, label, prediction, version, image, given_at in connection.execute(query, values):
        pixels = np.frombuffer(image, np.uint8).reshape(SIDE, SIDE)
        yield Entry(request, label, prediction, version, pixels, given_at)
