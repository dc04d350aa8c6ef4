"""Retraining triggers: data drift, wrong answers by feedback, the champion's age."""

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

_MAX_REPORT_AGE = timedelta(days=1)  # an older drift report says nothing about today


@dataclass
class Limits:
    """`conf/retrain.yaml`: from when on a new model is due."""

    champion_days: float = MISSING
    feedback_days: float = MISSING
    feedback_images: int = MISSING
    feedback_accuracy: float = MISSING


@dataclass(frozen=True)
class Finding:
    """One possible reason in words, and whether it makes a new model due."""

    due: bool
    text: str


def limits() -> Limits:
    """Return the limits of `conf/retrain.yaml`; PipelineError names a wrong key or type."""
    return rules.load("retrain.yaml", Limits)


def age(champion: ModelVersion | None, days: float, now: datetime, *, news: bool) -> Finding:
    """Find whether there is no champion, or it was promoted more than `days` ago.

    `news`: whether there are data that it was not trained on. Without them training would give the
    same model, and again the next day.
    """
    if champion is None:
        return Finding(True, "the registry has no champion")
    promoted = champion.tags.get(PROMOTED)
    since = datetime.fromisoformat(promoted) if promoted else registered_at(champion)
    old = (now - since) / timedelta(days=1)
    text = (
        f"the champion, version {champion.version}, is {old:.1f} days old, at most {days:g} wanted"
    )
    if old > days and not news:
        return Finding(False, f"{text}, but there are no data that it was not trained on")
    return Finding(old > days, text)


def registered_at(version: ModelVersion) -> datetime:
    """Return when the version was registered."""
    return datetime.fromtimestamp(version.creation_timestamp / 1000, UTC)


def feedback(
    entries: Iterable[Entry], champion: ModelVersion | None, limits: Limits, now: datetime
) -> Iterator[Finding]:
    """Find each version's share of right answers by recent feedback; the champion's decides."""
    since = (now - timedelta(days=limits.feedback_days)).isoformat(timespec="seconds")
    total, right = Counter[str](), Counter[str]()
    for entry in entries:
        if entry.given_at >= since:
            total[entry.model_version] += 1
            right[entry.model_version] += entry.label == entry.prediction
    serving = str(champion.version) if champion else None
    for version, count in sorted(total.items()):
        share = right[version] / count
        text = (
            f"version {version} was right in {right[version]} of {count} ({share:.1%}) feedbacks "
            f"since {since[:10]}"
        )
        if version != serving:
            yield Finding(False, f"{text}; it is not the champion")
        elif count < limits.feedback_images:
            yield Finding(False, f"{text}; {limits.feedback_images} would count")
        else:
            wanted = f"at least {limits.feedback_accuracy:.1%} wanted"
            yield Finding(share < limits.feedback_accuracy, f"{text}, {wanted}")
    if serving not in total:
        yield Finding(False, f"no feedback on the champion since {since[:10]}")


def drift(report: Path, champion: ModelVersion | None, now: datetime) -> Finding:
    """Find what the drift job's last check says; PipelineError if `report` is no report of it."""
    try:
        content = json.loads(report.read_bytes())
        found, version = content["drift"], content["model_version"]
        checked = datetime.fromisoformat(content["checked"])
        old = now - checked > _MAX_REPORT_AGE  # a TypeError of a date without a zone
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
