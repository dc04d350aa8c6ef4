"""*Model*: its answers and their confidence, drift, feedback, and versions side by side."""

from __future__ import annotations

from monitoring.drift.drift_tests import FALSE_ALARMS, LARGE_PSI
from monitoring.grafana.panels import Panel, Steps, bars, figure, heat, lines, rows

_OURS = 'job="digits",instance=~"$replica",model_version=~"$model_version"'
_RATE = "[$__rate_interval]"
_RANGE = "[$__range]"

_UNCERTAIN: Steps = ((0.05, "yellow"), (0.1, "red"))  # shares of all answers
_FEW_RIGHT: Steps = ((0.95, "yellow"), (0.98, "green"))
_OLD: Steps = ((30 * 86400, "yellow"), (90 * 86400, "red"))  # seconds


def _total(metric: str, over: str, by: str = "", more: str = "") -> str:
    """How often per second; over the whole range how often."""
    function = "increase" if over == _RANGE else "rate"
    grouped = f"sum by ({by})" if by else "sum"
    return f"{grouped} ({function}({metric}{{{_OURS}{more}}}{over}))"


def _share(metric: str, over: str, by: str = "") -> str:
    """Of all answers; 0 where the service has counted none of these yet."""
    answers = _total("predictions_total", over, by)
    return f"({_total(metric, over, by)} or 0 * {answers}) / {answers}"


def _right(over: str, by: str = "") -> str:
    """Share of the feedback that agrees with the answer."""
    right = _total("feedback_total", over, by, ',correct="true"')
    given = _total("feedback_total", over, by)
    return f"({right} or 0 * {given}) / {given}"


def _per_hour(correct: str) -> str:
    given = _total("feedback_total", "[1h]", more=f',correct="{correct}"')
    return f"({given} or vector(0)) * 3600"


def _mean(metric: str, over: str, by: str) -> str:
    return f"{_total(f'{metric}_sum', over, by)} / {_total(f'{metric}_count', over, by)}"


def _confidence(over: str, by: str) -> str:
    # Just begun, a rate of the sum may be extrapolated further than that of the count.
    return f"clamp_max({_mean('prediction_confidence_score', over, by)}, 1)"


def _buckets(metric: str) -> str:
    return f"sum by (le) (increase({metric}_bucket{{{_OURS}}}{_RATE}))"


_VERSION = "model_version"
_TIMES = _total("prediction_latency_seconds_bucket", _RATE, "model_version, le")

ROWS: dict[str, list[Panel]] = {
    "Now": [
        figure(
            "Version",
            "The version in service; several while replicas follow a promotion.",
            'max by (model_version) (model_info{job="digits",instance=~"$replica"})',
            "short",
            name="{{model_version}}",
            span=3,
        ),
        figure(
            "Age",
            "Since the version in service was registered, or its files were written.",
            f"time() - min(model_created_timestamp_seconds{{{_OURS}}})",
            "s",
            steps=_OLD,
            runbook="modelold",
            span=4,
        ),
        figure(
            "Answers",
            "Predictions per second.",
            _total("predictions_total", _RATE),
            "cps",
            span=3,
        ),
        figure(
            "Uncertain",
            "Share of answers below CONFIDENCE_THRESHOLD, over the time that is shown.",
            f"{_share('predictions_uncertain_total', _RANGE)} >= 0",  # not a number without answers
            "percentunit",
            steps=_UNCERTAIN,
            runbook="lowconfidence",
            span=3,
            decimals=2,
        ),
        figure(
            "Not a digit",
            "Share of pictures that do not look like a digit, over the time that is shown.",
            f"{_share('predictions_not_digit_total', _RANGE)} >= 0",
            "percentunit",
            steps=_UNCERTAIN,
            runbook="notadigit",
            span=3,
            decimals=2,
        ),
        figure(
            "Right, by feedback",
            "Share of feedback that agrees with the answer, over the time that is shown.",
            f"{_right(_RANGE)} >= 0",
            "percentunit",
            steps=_FEW_RIGHT,
            base="red",
            runbook="feedbackaccuracylow",
            span=4,
            decimals=2,
        ),
        figure(
            "Drift",
            "Whether what is sent differs from what the model was trained on.",
            "max(drift_detected)",
            "short",
            words={"0": ("none", "green"), "1": ("detected", "red")},
            runbook="driftdetected",
            span=4,
        ),
    ],
    "Answers": [
        lines(
            "Answers by class",
            "Digits per second. People write some more often than others; a jump is news.",
            {"{{predicted_class}}": _total("predictions_total", _RATE, "predicted_class")},
            "cps",
            stacked=True,
            runbook="driftdetected",
        ),
        bars(
            "Share of each class",
            "Over the time that is shown; MNIST has 9 to 11 % of each.",
            {
                "{{predicted_class}}": (
                    f"{_total('predictions_total', _RANGE, 'predicted_class')}"
                    f" / on () group_left () {_total('predictions_total', _RANGE)}"
                )
            },
            "percentunit",
            least=0,
            runbook="driftdetected",
            span=12,
            decimals=1,
        ),
    ],
    "Confidence": [
        heat(
            "Confidence",
            "How many answers were how sure. A healthy model is near 100 % almost always.",
            _buckets("prediction_confidence_score"),
            "percentunit",
            runbook="lowconfidence",
        ),
        heat(
            "Likelihood of a digit",
            "How much what was sent looks like a digit. Low: photos, scribbles, other scripts.",
            _buckets("digit_likelihood_score"),
            "percentunit",
            runbook="notadigit",
        ),
        lines(
            "Uncertain and not a digit",
            "Shares of all answers.",
            {
                "uncertain": _share("predictions_uncertain_total", _RATE),
                "not a digit": _share("predictions_not_digit_total", _RATE),
            },
            "percentunit",
            steps=_UNCERTAIN,
            runbook="lowconfidence",
        ),
        lines(
            "Mean confidence by class",
            "A class below the others: the model has trouble with how it is written here.",
            {"{{predicted_class}}": _confidence(_RATE, "predicted_class")},
            "percentunit",
            most=1,
            least=None,
            runbook="lowconfidence",
        ),
    ],
    "Drift": [
        lines(
            "p-values",
            "Of the tests against the validation images; below the line is no chance any more.",
            {"{{test}}": "clamp_min(min by (test) (drift_p_value), 1e-6)"},
            "none",
            steps=((FALSE_ALARMS / 10, "red"),),
            least=1e-6,
            most=1,
            logarithmic=True,
            runbook="driftdetected",
            span=8,
        ),
        lines(
            "Population stability index",
            "Distance from the validation images by feature: 0.1 is a shift, 0.25 a large one.",
            {"{{feature}}": "max by (feature) (drift_psi)"},
            "none",
            steps=((0.1, "yellow"), (LARGE_PSI, "red")),
            runbook="driftdetected",
            span=8,
            decimals=2,
        ),
        lines(
            "Pictures in the window",
            "The tests wait until there are as many as they need.",
            {"there": "max(drift_window_images)", "needed": "max(drift_needed_images)"},
            "short",
            runbook="driftdetected",
            span=5,
        ),
        figure(
            "Last check",
            "When the drift job last looked.",
            "max(drift_last_check_timestamp_seconds) * 1000",
            "dateTimeFromNow",
            runbook="driftdetected",
            span=3,
            height=8,
        ),
    ],
    "Feedback": [
        lines(
            "Right, by feedback",
            "Share that agrees with the answer. People report mistakes more readily than hits.",
            {
                "{{model_version}}": _right("[1h]", _VERSION),
            },
            "percentunit",
            steps=((0.95, "red"),),
            most=1,
            least=None,
            runbook="feedbackaccuracylow",
        ),
        lines(
            "Feedback",
            "Per hour: few make the share at the left meaningless.",
            {
                "right": _per_hour("true"),
                "wrong": _per_hour("false"),
            },
            "short",
            stacked=True,
            runbook="feedbackaccuracylow",
        ),
    ],
    "Versions side by side": [
        rows(
            "Versions",
            "Over the time that is shown.",
            {_VERSION: "Version"},
            {
                "Answers": (_total("predictions_total", _RANGE, _VERSION), "short", 0),
                "Mean confidence": (
                    _confidence(_RANGE, _VERSION),
                    "percentunit",
                    2,
                ),
                "Uncertain": (
                    _share("predictions_uncertain_total", _RANGE, _VERSION),
                    "percentunit",
                    2,
                ),
                "Not a digit": (
                    _share("predictions_not_digit_total", _RANGE, _VERSION),
                    "percentunit",
                    2,
                ),
                "Right, by feedback": (_right(_RANGE, _VERSION), "percentunit", 2),
                "Mean time": (_mean("prediction_latency_seconds", _RANGE, _VERSION), "s", 2),
            },
            runbook="modelskew",
        ),
        lines(
            "Answers by version",
            "A promotion, or callers that ask for a version by its number.",
            {"{{model_version}}": _total("predictions_total", _RATE, _VERSION)},
            "cps",
            stacked=True,
            runbook="modelskew",
            span=8,
        ),
        lines(
            "Mean confidence by version",
            "The same traffic should make the new version no less sure.",
            {"{{model_version}}": _confidence(_RATE, _VERSION)},
            "percentunit",
            most=1,
            least=None,
            runbook="modelskew",
            span=8,
        ),
        lines(
            "p95 by version",
            "Time to normalise and read one image.",
            {"{{model_version}}": f"histogram_quantile(0.95, {_TIMES})"},
            "s",
            runbook="modelskew",
            span=8,
        ),
    ],
}
