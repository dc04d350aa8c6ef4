"""The true digits that people told us, with the images that the model saw, for retraining."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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


class UnknownRequestError(Exception):
    """The request is not, or no longer, known, and no image came along."""


class Entry(NamedTuple):
    """One feedback: what the model saw, what it said, and what it should have said."""

    request_id: str
    label: int
    prediction: int
    model_version: str
    image: NDArray[np.uint8]  # (28, 28)


class Feedback:
    """A table in a SQLite file: one row per request, on the disk once `add` returns."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, entry: Entry) -> bool:
        """Keeps the entry; whether it changed anything. The last of a request counts."""
        row = (*entry[:4], entry.image.tobytes(), datetime.now(UTC).isoformat(timespec="seconds"))
        with self._connected() as connection, connection:
            return connection.execute(_UPSERT, row).rowcount == 1

    def find(self, request_id: str) -> Entry | None:
        """What is kept of the request."""
        return next(self._select("WHERE request_id = ?", request_id), None)

    def entries(self) -> Iterator[Entry]:
        """All that is kept, the oldest first."""
        yield from self._select("ORDER BY given_at, request_id")

    def _select(self, clause: str, *values: str) -> Iterator[Entry]:
        columns = "request_id, label, prediction, model_version, image"
        with self._connected() as connection:
            query = f"SELECT {columns} FROM feedback {clause}"  # noqa: S608 - both are ours
            for request, label, prediction, version, image in connection.execute(query, values):
                pixels = np.frombuffer(image, np.uint8).reshape(28, 28)
                yield Entry(request, label, prediction, version, pixels)

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=20)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(_TABLE)
            yield connection
        finally:
            connection.close()
