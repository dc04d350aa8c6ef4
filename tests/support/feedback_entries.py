"""Entries of the service's feedback database, each with an image of its own."""

import numpy as np

from serve.prediction.feedback_store import Entry, FeedbackStore


def noise(number):
    """Return an image of noise, another for each number."""
    return np.random.default_rng(number).integers(0, 256, (28, 28), np.uint8)


def entry(number, label=None, *, prediction=None, version="1", image=None):
    """Return the feedback for request `number`; by default it confirms the prediction."""
    label = number % 10 if label is None else label
    prediction = label if prediction is None else prediction
    image = noise(number) if image is None else image
    return Entry(f"request-{number}", label, prediction, version, image)


def database(path, entries):
    """Write the entries to a database as the service does; returns its path."""
    feedback = FeedbackStore(path)
    for each in entries:
        feedback.add(each)
    return path
