"""Feedback databases of the service's replicas: read while they are in use, and merged."""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.config import PipelineError
from pipeline.data.dataset import CLASSES, SIDE
from pipeline.user_feedback.export_file import Export
from serve.prediction.feedback_store import NO_DIGIT, Entry, FeedbackStore


def read(databases: Sequence[Path]) -> list[Entry]:
    """Return one entry per request, the oldest first; of several replicas' entries the latest.

    It is a PipelineError if a file is missing, or is not a feedback database.
    """
    entries = [entry for database in databases for entry in _entries(database)]
    # By all columns, so that the order of the files changes nothing.
    entries.sort(key=lambda e: (e.given_at, e.label, e.request_id, e.image.tobytes()))
    return list({(entry.request_id, entry.owner): entry for entry in entries}.values())


def _entries(database: Path) -> list[Entry]:
    try:
        return FeedbackStore(database).entries()
    except FileNotFoundError:
        raise PipelineError(
            f"{database} is missing: name the files STATE_DIR/feedback.db of the service "
            "(.state/feedback.db here); the service makes one with the first feedback"
        ) from None
    except (sqlite3.DatabaseError, ValueError, OSError) as error:
        message = f"{database} cannot be read as feedback of the service: {error}"
        raise PipelineError(message) from error


@dataclass(frozen=True)
class Merged:
    """Feedback to export, and counts of what was merged and dropped."""

    export: Export
    requests: int  # with feedback
    confirmed: int  # images: the model was right at least once
    repeated: int  # requests with an image that was there already
    disputed: int  # images with several labels: dropped
    unusable: int  # requests with another label or with an empty image: dropped


def merge(entries: Iterable[Entry]) -> Merged:
    """Return each image once, sorted by bytes, with the label on which all its feedback agrees.

    Request ids, users and times are not kept.
    """
    requests = unusable = repeated = 0
    labels: dict[bytes, set[int]] = defaultdict(set)
    right: set[bytes] = set()
    for entry in entries:
        requests += 1
        known = isinstance(entry.label, int) and entry.label in (NO_DIGIT, *range(CLASSES))
        if not known or not entry.image.any():
            unusable += 1
            continue
        image = entry.image.tobytes()
        repeated += image in labels
        labels[image].add(int(entry.label))
        if entry.label == entry.prediction:
            right.add(image)
    agreed = sorted((image, min(found)) for image, found in labels.items() if len(found) == 1)
    confirmed = sum(image in right for image, _ in agreed)
    images = np.frombuffer(b"".join(image for image, _ in agreed), np.uint8)
    given = np.array([label for _, label in agreed])
    images, digits = images.reshape(-1, SIDE, SIDE), given != NO_DIGIT
    export = Export(images[digits], given[digits].astype(np.uint8), images[~digits])
    return Merged(export, requests, confirmed, repeated, len(labels) - len(agreed), unusable)
