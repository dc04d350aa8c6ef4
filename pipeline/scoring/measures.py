"""Metrics of scored pictures, of all together and a row per set."""

from typing import Any

import numpy as np

from pipeline.evaluation import metrics, significance
from pipeline.scoring.scored import Scored

_OF_A_SET = (
    *("pictures", "unlabelled", "refused", "images", "errors"),
    *("accuracy", "wilson", "accuracy_with_refused"),
)


def measure(scored: Scored) -> dict[str, Any]:
    """Return metrics of the pictures with a known class, named as in `evaluate`.

    All but `pictures`, `refused` and `accuracy_with_refused` are of those that were read.
    """
    labels, probabilities, table = scored.labels, scored.probabilities, scored.table
    predicted = probabilities.argmax(axis=1).astype(np.uint8)
    confusion = metrics.confusion_matrix(labels, predicted, len(scored.classes))
    right = confusion.diagonal().tolist()
    counts = list(zip(right, confusion.sum(axis=1).tolist(), strict=True))
    flagged = (table["uncertain"] | table["not_digit"]).fillna(False).to_numpy(bool)
    wrong = scored.places[predicted != labels]
    known = table[table["label"].notna()]
    return {
        "accuracy": sum(right) / len(labels),
        "wilson": significance.wilson(sum(right), len(labels)),
        "loss": metrics.log_loss(probabilities, labels),
        "ece": metrics.calibration_error(metrics.reliability(probabilities, labels)),
        "accuracy_with_refused": sum(right) / len(known),
        "images": len(labels),
        "errors": len(wrong),
        "pictures": len(known),
        "unlabelled": len(table) - len(known),
        "refused": int(known["detail"].notna().sum()),
        "uncertain": int(known["uncertain"].sum()),
        "not_digit": int(known["not_digit"].sum()),
        "flagged": int(flagged[scored.places].sum()),
        "flagged_errors": int(flagged[wrong].sum()),
        "classes": scored.classes,
        "recall": [r / n if n else None for r, n in counts],
        "recall_wilson": [significance.wilson(*pair) if pair[1] else None for pair in counts],
        "precision": metrics.precision(confusion).tolist(),
        "confusion": confusion.tolist(),
    }


def row(scored: Scored) -> dict[str, Any]:
    """Return a set's row: counts, accuracy, the lowest recall, and of which class it is.

    A set of which no labelled picture was read has counts alone, one without errors no worst class.
    """
    if not len(scored.places):
        known = int(scored.table["label"].notna().sum())
        counts = {"pictures": known, "unlabelled": len(scored.table) - known, "refused": known}
        return {**dict.fromkeys((*_OF_A_SET, "worst_class", "worst_recall")), **counts, "images": 0}
    found = measure(scored)
    recalls = zip(found["recall"], scored.classes, strict=True)
    recall, name = min((pair for pair in recalls if pair[0] is not None), key=lambda pair: pair[0])
    return {key: found[key] for key in _OF_A_SET} | {
        "worst_class": name if recall < 1 else None,
        "worst_recall": recall,
    }
