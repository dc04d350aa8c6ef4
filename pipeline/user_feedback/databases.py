"""What users told the service: read from the databases of its replicas, beside their work."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.config import PipelineError
from pipeline.data.dataset import CLASSES, SIDE
from pipeline.user_feedback.export_file import Corrections
from serve.prediction.feedback_store import Entry, FeedbackStore


def read(databases: Sequence[Path]) -> list[Entry]:
    """What was told of each request, the last if several replicas were told; the oldest first.

    Raises:
        PipelineError: one of the files is missing or something else.
    """
    rows = [entry for database in databases for entry in _entries(database)]
    # By all that is told, so that the order of the files changes nothing.
    rows.sort(key=lambda row: (row.given_at, row.label, row.request_id, row.image.tobytes()))
    return list({row.request_id: row for row in rows}.values())


def _entries(database: Path) -> list[Entry]:
    try:
        return [_typed(entry) for entry in FeedbackStore(database).entries()]
    except FileNotFoundError:
        raise PipelineError(
            f"{database} is missing: name the files STATE_DIR/feedback.db of the service "
            "(.state/feedback.db here); one is made with the first feedback"
        ) from None
    except (sqlite3.DatabaseError, TypeError, ValueError, OSError) as error:
        message = f"{database} cannot be read as feedback of the service: {error}"
        raise PipelineError(message) from error


def _typed(entry: Entry) -> Entry:
    """The entry, as the service's own table holds it: another's may hold anything anywhere.

    Raises:
        TypeError: a column has another type.
    """
    texts = (entry.request_id, entry.model_version, entry.given_at)
    numbers = (entry.label, entry.prediction)
    if all(isinstance(text, str) for text in texts) and all(isinstance(n, int) for n in numbers):
        return entry
    raise TypeError(f"a row of request {entry.request_id!r} has columns of other types")


@dataclass(frozen=True)
class Resolved:
    """Feedback as it is exported, and what happened on the way there, counted."""

    corrections: Corrections
    told: int  # requests with feedback
    confirmed: int  # of the images: the model was right at least once
    repeated: int  # requests that told of the same image again
    disputed: int  # images with several labels: dropped
    unusable: int  # requests without a digit from 0 to 9 or an image with something in it: dropped


def resolve(entries: Iterable[Entry]) -> Resolved:
    """Each image once, with the digit that all who told of it agree on, in the order of its bytes.

    No request id is kept, nor who told what or when.
    """
    told = unusable = repeated = 0
    labels: dict[bytes, set[int]] = defaultdict(set)
    right: set[bytes] = set()
    for entry in entries:
        told += 1
        if not _usable(entry):
            unusable += 1
            continue
        image = entry.image.tobytes()
        repeated += image in labels
        labels[image].add(entry.label)
        if entry.label == entry.prediction:
            right.add(image)
    agreed = sorted(image for image, found in labels.items() if len(found) == 1)
    confirmed = sum(image in right for image in agreed)
    images = np.frombuffer(b"".join(agreed), np.uint8).reshape(-1, SIDE, SIDE)
    digits = np.array([label for image in agreed for label in labels[image]], np.uint8)
    disputed = len(labels) - len(agreed)
    return Resolved(Corrections(images, digits), told, confirmed, repeated, disputed, unusable)


def _usable(entry: Entry) -> bool:
    """Whether the database holds a digit and a picture: it is not strict about what they say."""
    return entry.label in range(CLASSES) and bool(entry.image.any())
