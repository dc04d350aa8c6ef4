"""Digests that identify a model bundle: tags in the registry, checked after a download.

Earlier versions of the service compute the same digests, so their values must never change. Each
function raises BundleError if `model.json` is missing or incomplete.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from serve.models.predictor import INT8, BundleError


def model_digest(bundle: Path) -> str:
    """Return the digest of what decides the predictions: the model file and its temperature.

    Of other pictures than digits also what the answers are called and how a picture is prepared.
    """
    described, names = _description(bundle), ["sha256", "temperature"]
    if "preparation" in (described.get("input") or {}):
        names += ["classes", "input"]
    return _digest(bundle, described, *names)


def likelihood_digest(bundle: Path) -> str:
    """Return the digest of the out-of-distribution score; empty if the bundle has none."""
    likelihood = _description(bundle).get("likelihood")
    if not likelihood:
        return ""
    own = isinstance(likelihood, dict) and "score" not in likelihood  # a network of its own
    names = ("sha256", "threshold") if own else ("score", "threshold", "offset", "scale")
    return _digest(bundle, likelihood, *names)


def int8_digest(bundle: Path) -> str:
    """Return the digest of the int8 model and its temperature; empty if the bundle has none."""
    precisions = _description(bundle).get("precisions")
    int8 = precisions.get(INT8) if isinstance(precisions, dict) else None
    return _digest(bundle, int8, "sha256", "temperature") if int8 else ""


def identity(bundle: Path) -> str:
    """Return one digest of everything that decides the bundle's answers."""
    digests = [model_digest(bundle), likelihood_digest(bundle), int8_digest(bundle)]
    model, *others = filter(None, digests)
    return hashlib.sha256(" ".join([model, *others]).encode()).hexdigest() if others else model


def _description(bundle: Path) -> dict[str, Any]:
    try:
        content = json.loads((bundle / "model.json").read_bytes())
    except (OSError, ValueError) as error:
        raise BundleError(f"{bundle} is not a model bundle: {error}") from error
    return content if isinstance(content, dict) else {}


def _digest(bundle: Path, described: dict[str, Any], *names: str) -> str:
    try:
        decisive = " ".join(str(described[name]) for name in names)
    except (KeyError, TypeError) as error:
        raise BundleError(f"{bundle} is not a model bundle: model.json lacks {error}") from error
    return hashlib.sha256(decisive.encode()).hexdigest()
