"""The reasons to train anew: drift, wrong answers that users told of, age."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion
from omegaconf import MISSING

from pipeline.config import PipelineError, rules
from pipeline.registry.versions import PROMOTED
from serve.prediction.feedback_store import Entry


@dataclass
class Limits:
    """`conf/retrain.yaml`: from when on a new model is due."""

    champion_days: float = MISSING
    feedback_days: float = MISSING
    feedback_images: int = MISSING
    feedback_accuracy: float = MISSING


@dataclass(frozen=True)
class Finding:
    """One possible reason in words, and whether it is one."""

    due: bool
    text: str


def limits() -> Limits:
    """Return the limits of `conf/retrain.yaml`; PipelineError names a wrong key or type."""
    return rules.load("retrain.yaml", Limits)


def age(champion: ModelVersion | None, days: float, now: datetime, *, news: bool) -> Finding:
    """Whether the champion was promoted too long ago, or there is none.

    `news`: whether there is anything to train on that it was not trained on. Without, training
    would give it again, and again the next day.
    """
    if champion is None:
        return Finding(True, "the registry has no champion")
    old = (now - _promoted(champion)) / timedelta(days=1)
    text = (
        f"the champion, version {champion.version}, is {old:.1f} days old, at most {days:g} wanted"
    )
    if old > days and not news:
        return Finding(False, f"{text}, but its data are all there is")
    return Finding(old > days, text)


def made(version: ModelVersion) -> datetime:
    """When the version was registered."""
    return datetime.fromtimestamp(version.creation_timestamp / 1000, UTC)


def _promoted(champion: ModelVersion) -> datetime:
    promoted = champion.tags.get(PROMOTED)
    return datetime.fromisoformat(promoted) if promoted else made(champion)


def feedback(
    told: Iterable[Entry], champion: ModelVersion | None, limits: Limits, now: datetime
) -> Iterator[Finding]:
    """How often each version was right, as users see it; the champion's share decides."""
    since = (now - timedelta(days=limits.feedback_days)).isoformat(timespec="seconds")
    given, right = Counter[str](), Counter[str]()
    for entry in told:
        if entry.given_at >= since:
            given[entry.model_version] += 1
            right[entry.model_version] += entry.label == entry.prediction
    serving = str(champion.version) if champion else None
    for version, count in sorted(given.items()):
        share = right[version] / count
        text = f"version {version} was right in {right[version]} of {count} ({share:.1%}) feedbacks"
        if version != serving:
            yield Finding(False, f"{text} since {since[:10]}; it is not the champion")
        elif count < limits.feedback_images:
            yield Finding(False, f"{text} since {since[:10]}; {limits.feedback_images} would count")
        else:
            wanted = f"at least {limits.feedback_accuracy:.1%} wanted"
            yield Finding(share < limits.feedback_accuracy, f"{text} since {since[:10]}, {wanted}")
    if serving not in given:
        yield Finding(False, f"no feedback on the champion since {since[:10]}")


def drift(report: Path, champion: ModelVersion | None, now: datetime) -> Finding:
    """What the drift job found at its last check, if that is of the champion and of today.

    Raises:
        PipelineError: the file is missing, or says nothing about drift.
    """
    try:
        about = json.loads(report.read_bytes())
        found, version = about["drift"], about["model_version"]
        checked = datetime.fromisoformat(about["checked"])
        old = now - checked > timedelta(days=1)  # a TypeError of a date without a zone
    except FileNotFoundError:
        raise PipelineError(f"{report} is missing: python -m monitoring.drift writes it") from None
    except (ValueError, KeyError, TypeError) as error:
        raise PipelineError(f"{report} is no report of the drift job: {error!r}") from error
    if not isinstance(found, bool):
        raise PipelineError(f"{report}: drift must be true or false, not {found!r}")
    text = f"{report} says {'drift' if found else 'no drift'}"
    if champion and version != str(champion.version):
        return Finding(False, f"{text}, but of version {version}, which is not the champion")
    if old:
        return Finding(False, f"{text}, but on {checked:%Y-%m-%d}: does the job still run?")
    return Finding(found, text)
