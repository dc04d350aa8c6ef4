"""Promotion gates between the best model and production: limits and measurements."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from omegaconf import MISSING, OmegaConf

from pipeline.config import PipelineError
from pipeline.config import rules as config_rules
from pipeline.config.data_schema import Data
from pipeline.config.suggestions import did_you_mean
from pipeline.data.dataset import Split
from pipeline.evaluation import latency
from pipeline.evaluation.metrics import confusion_matrix, recall
from pipeline.evaluation.significance import mcnemar
from pipeline.reports import theme
from serve.models.predictor import Predictor


@dataclass
class Gates:
    """Limits of `conf/register.yaml`."""

    test_accuracy: float = MISSING
    recall: float = MISSING
    field_accuracy: float = MISSING
    latency_ms_p99: float = MISSING
    bundle_bytes: float = MISSING
    mcnemar_p: float = MISSING


@dataclass
class FieldSets:
    """Where pictures of other people may be, and how many of each set are asked."""

    folder: str = MISSING
    pictures: int = MISSING


@dataclass
class Defaults:
    """`conf/register.yaml`: the gates of all data sets, and the field sets of the digits."""

    field_sets: FieldSets = MISSING
    gates: Gates = MISSING


@dataclass(frozen=True)
class Rules:
    """Under which name a data set's models are registered, and behind which gates.

    `model`: None if they are not. `field_sets`: None where those are not of its classes.
    """

    model: str | None
    field_sets: FieldSets | None
    gates: Gates


@dataclass(frozen=True)
class Check:
    """The outcome of one gate, in words."""

    gate: str
    passed: bool
    finding: str


def rules(data: str) -> Rules:
    """Return the rules of a data set: `conf/register.yaml`, and what its own file says instead.

    PipelineError names a wrong key, type or value.
    """
    found = config_rules.load("register.yaml", Defaults)
    if found.field_sets.pictures < 1:
        raise PipelineError("conf/register.yaml: field_sets.pictures must be at least 1")
    of_data = config_rules.load(f"data/{data}.yaml", Data)
    names = {each.name for each in fields(Gates)}
    for name in of_data.gates:
        if name not in names:
            close = did_you_mean(name, names)
            raise PipelineError(f"conf/data/{data}.yaml: there is no gate {name}{close}")
    merged = OmegaConf.merge(OmegaConf.structured(found.gates), of_data.gates)
    limits = OmegaConf.to_object(merged)
    assert isinstance(limits, Gates)
    return Rules(of_data.registered_model, found.field_sets if of_data.digits else None, limits)


def check(
    limits: Gates, candidate: Predictor, champion: Predictor | None, test: Split
) -> Iterator[Check]:
    """Measure the candidate's bundle against each gate in turn.

    Without a champion that can be read, or with one of other pictures, nothing is compared with it.
    """
    predicted = candidate.probabilities(test.images).argmax(axis=1)
    right = predicted == test.labels
    accuracy = float(right.mean())
    text = f"test accuracy {accuracy:.4f}, at least {limits.test_accuracy} wanted"
    yield Check("test_accuracy", accuracy >= limits.test_accuracy, text)
    classes = candidate.classes
    confusion = confusion_matrix(test.labels, predicted.astype(np.uint8), len(classes))
    recalls = recall(confusion)
    worst = int(recalls.argmin())
    name = f"{theme.noun(classes, candidate.preparation.kind)} {classes[worst]}"
    text = f"lowest recall {recalls[worst]:.4f} ({name}), at least {limits.recall} wanted"
    yield Check("recall", recalls[worst] >= limits.recall, text)
    _, p99 = latency.latency(candidate.probabilities, test.images)
    text = f"p99 latency of one image {p99:.2f} ms, below {limits.latency_ms_p99:g} wanted"
    yield Check("latency_ms_p99", p99 < limits.latency_ms_p99, text)
    text = f"bundle {candidate.size / 1e6:.2f} MB, below {limits.bundle_bytes / 1e6:g} wanted"
    yield Check("bundle_bytes", candidate.size < limits.bundle_bytes, text)
    if champion and comparable(candidate, champion):
        yield _not_worse(right, champion, test, limits.mcnemar_p)


def comparable(candidate: Predictor, champion: Predictor) -> bool:
    """Whether both read the same images and tell the same classes apart."""
    same = candidate.preparation == champion.preparation
    return same and candidate.classes == champion.classes


def check_field(limits: Gates, right: int, pictures: int, sets: int) -> Check:
    """Hold what the candidate reads right of the field sets, all together, against its gate."""
    accuracy = right / pictures
    text = (
        f"field accuracy {accuracy:.4f} on {pictures:,} pictures of {sets} set{'s'[: sets > 1]}, "
        f"at least {limits.field_accuracy} wanted"
    )
    return Check("field_accuracy", accuracy >= limits.field_accuracy, text)


def _not_worse(right: NDArray[np.bool_], champion: Predictor, test: Split, level: float) -> Check:
    champion_right = champion.probabilities(test.images).argmax(axis=1) == test.labels
    p = mcnemar(right, champion_right).p
    worse = bool(right.sum() < champion_right.sum() and p < level)
    return Check(
        "mcnemar_p",
        not worse,
        f"{'' if worse else 'not '}significantly worse than the present champion: {right.sum()} "
        f"right, champion {champion_right.sum()} (McNemar p = {p:.3g})",
    )
