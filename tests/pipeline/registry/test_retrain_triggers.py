"""The reasons to train anew, each with its limit."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from mlflow.entities.model_registry import ModelVersion
from support.feedback_entries import entry

from pipeline.config import PipelineError
from pipeline.registry import retrain_triggers
from pipeline.registry.retrain_triggers import Limits

REPORT = '{"drift": %s, "model_version": "3", "checked": "2026-06-30T10:00:00Z"}'
NOW = datetime(2026, 6, 30, 12, tzinfo=UTC)
LIMITS = Limits(champion_days=30, feedback_days=10, feedback_images=20, feedback_accuracy=0.9)


def champion(version="3", days=0.0, promoted=None):
    made = int((NOW - timedelta(days=days)).timestamp() * 1000)
    found = ModelVersion("mnist-classifier", version, made)
    if promoted is not None:
        found.tags["promoted_at"] = (NOW - timedelta(days=promoted)).isoformat()
    return found


def given(count, right, version="3", days=1.0):
    at = (NOW - timedelta(days=days)).isoformat(timespec="seconds")
    return [
        entry(n, label=1, prediction=1 if n < right else 2, version=version)._replace(given_at=at)
        for n in range(count)
    ]


def found(*entries, serving="3"):
    version = champion(serving) if serving else None
    return list(retrain_triggers.feedback([e for es in entries for e in es], version, LIMITS, NOW))


@pytest.mark.parametrize(
    ("days", "promoted", "due"),
    [(0, None, False), (29.9, None, False), (30.1, None, True), (90, 1, False), (90, 31, True)],
)
def test_a_champion_is_due_when_it_was_promoted_long_ago(days, promoted, due):
    finding = retrain_triggers.age(champion(days=days, promoted=promoted), 30, NOW, news=True)
    assert finding.due is due
    assert f"version 3, is {promoted or days:.1f} days old" in finding.text


def test_an_old_champion_is_not_due_without_other_data():
    finding = retrain_triggers.age(champion(days=31), 30, NOW, news=False)
    assert not finding.due
    assert "no data that it was not trained on" in finding.text


def test_a_registry_without_champion_needs_one():
    assert retrain_triggers.age(None, 30, NOW, news=False).due


@pytest.mark.parametrize(("right", "due"), [(36, False), (35, True), (0, True)])
def test_the_champions_share_of_right_answers_decides(right, due):
    (finding,) = found(given(40, right))
    assert finding.due is due
    assert f"version 3 was right in {right} of 40 ({right / 40:.1%})" in finding.text
    assert "since 2026-06-20, at least 90.0% wanted" in finding.text


@pytest.mark.parametrize(("count", "due"), [(19, False), (20, True), (21, True)])
def test_few_feedbacks_decide_nothing(count, due):
    (finding,) = found(given(count, 0))
    assert finding.due is due
    assert ("; 20 would count" in finding.text) is not due


def test_other_versions_are_told_of_and_decide_nothing():
    first, second = found(given(40, 0, version="2"), given(40, 40))
    assert (first.due, second.due) == (False, False)
    assert "version 2 was right in 0 of 40" in first.text
    assert "not the champion" in first.text


@pytest.mark.parametrize(("days", "counted"), [(9.9, True), (10, True), (10.1, False)])
def test_feedback_of_long_ago_is_not_counted(days, counted):
    (finding,) = found(given(40, 0, days=days), given(20, 20))
    assert finding.due is counted
    assert f"20 of {60 if counted else 20}" in finding.text


@pytest.mark.parametrize("serving", ["4", None])
def test_it_is_said_when_nobody_told_of_the_champion(serving):
    assert found(given(40, 0), serving=serving)[-1].text.startswith("no feedback on the champion")


def checked(folder, drift=True, version="3", hours=1.0):
    at = (NOW - timedelta(hours=hours)).isoformat(timespec="seconds")
    report = folder / "drift.json"
    report.write_text(json.dumps({"drift": drift, "model_version": version, "checked": at}))
    return retrain_triggers.drift(report, champion(), NOW)


@pytest.mark.parametrize(("drift", "text"), [(True, "says drift"), (False, "says no drift")])
@pytest.mark.parametrize("hours", [1, 24])
def test_the_drift_job_is_believed(tmp_path, drift, text, hours):
    finding = checked(tmp_path, drift, hours=hours)
    assert finding.due is drift
    assert finding.text.endswith(text)


def test_drift_is_a_reason_without_a_champion(tmp_path):
    checked(tmp_path)
    assert retrain_triggers.drift(tmp_path / "drift.json", None, NOW).due


@pytest.mark.parametrize(
    ("other", "why"), [({"version": "2"}, "not the champion"), ({"hours": 24.01}, "on 2026-06-29")]
)
def test_drift_of_another_model_or_day_is_no_reason(tmp_path, other, why):
    finding = checked(tmp_path, **other)
    assert not finding.due
    assert why in finding.text


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"drift": true}',
        REPORT % '"no"',
        REPORT % 0,
        REPORT.replace("Z", "") % "true",
    ],
)
def test_a_report_that_does_not_say_is_refused(tmp_path, content):
    (tmp_path / "drift.json").write_text(content)
    with pytest.raises(PipelineError, match=r"drift\.json"):
        retrain_triggers.drift(tmp_path / "drift.json", champion(), NOW)
    with pytest.raises(PipelineError, match=r"python -m monitoring\.drift"):
        retrain_triggers.drift(tmp_path / "missing.json", champion(), NOW)


def test_the_limits_are_complete():
    limits = retrain_triggers.limits()
    assert 0 < limits.feedback_accuracy < 1
    assert min(limits.champion_days, limits.feedback_days, limits.feedback_images) > 0
