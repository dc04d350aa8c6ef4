"""*Pipeline*: its last run, accuracy of runs and versions, and the gates of promotion."""

from __future__ import annotations

from monitoring.grafana.panels import Panel, Steps, bars, figure, lines

_GOOD: Steps = ((0.98, "yellow"), (0.99, "green"))  # 0.99 is the gate of test accuracy
_VERSION = 'model_version=~"$model_version"'

ROWS: dict[str, list[Panel]] = {
    "Now": [
        figure(
            "Last run",
            "When the pipeline last left figures, here or in MLflow.",
            "max(pipeline_last_run_timestamp_seconds) * 1000",
            "dateTimeFromNow",
            runbook="the-pipeline",
        ),
        figure(
            "Champion",
            "The version that the registry's alias points at.",
            'max by (model_version) (pipeline_alias{alias="champion"})',
            "short",
            name="{{model_version}}",
            runbook="the-pipeline",
        ),
        figure(
            "In service",
            "The version that the service answers with; differs for MODEL_POLL_SECONDS at most.",
            'max by (model_version) (model_info{job="digits"})',
            "short",
            name="{{model_version}}",
            runbook="modeldegraded",
        ),
        figure(
            "Best test accuracy",
            "Of the runs in the last comparison.",
            "max(pipeline_test_accuracy)",
            "percentunit",
            steps=_GOOD,
            base="red",
            runbook="the-pipeline",
            decimals=2,
        ),
        figure(
            "Gates failed",
            "By the newest version that was judged; it is challenger if any.",
            "sum(1 - pipeline_gate_passed)",
            "short",
            steps=((1, "red"),),
            runbook="the-pipeline",
        ),
        figure(
            "Registry",
            "Whether the exporter reaches MLflow.",
            "min(pipeline_registry_up)",
            "short",
            words={"0": ("out of reach", "red"), "1": ("there", "green")},
            runbook="the-pipeline",
        ),
    ],
    "Accuracy": [
        bars(
            "Accuracy by run",
            "Of the last comparison. The best is chosen on validation alone.",
            {
                "run {{run}}, test": "pipeline_test_accuracy",
                "run {{run}}, validation": "pipeline_validation_accuracy",
            },
            "percentunit",
            least=0.97,
            most=1,
            steps=_GOOD,
            base="red",
            runbook="the-pipeline",
            span=6,
            decimals=2,
        ),
        bars(
            "Test accuracy by version",
            "Of every version in the registry.",
            {"version {{model_version}}": (f"pipeline_version_accuracy{{{_VERSION}}}")},
            "percentunit",
            least=0.97,
            most=1,
            steps=_GOOD,
            base="red",
            runbook="the-pipeline",
            span=6,
            decimals=2,
        ),
        bars(
            "Feedback accuracy by version",
            "On users' images that no model saw, of versions trained with feedback. No gate.",
            {"version {{model_version}}": (f"pipeline_version_feedback_accuracy{{{_VERSION}}}")},
            "percentunit",
            least=0,
            most=1,
            runbook="feedbackaccuracylow",
            span=6,
            decimals=1,
        ),
        bars(
            "Gates",
            "Of the newest version that was judged; its tags in the registry have the figures.",
            {"{{gate}}": "pipeline_gate_passed"},
            "short",
            least=0,
            most=1,
            steps=((1, "green"),),
            base="red",
            words={"0": ("failed", "red"), "1": ("passed", "green")},
            runbook="the-pipeline",
            span=6,
        ),
    ],
    "History": [
        lines(
            "Accuracy of the runs",
            "On the test set; a step is a new comparison.",
            {"run {{run}}": "max by (run) (pipeline_test_accuracy)"},
            "percentunit",
            steps=((0.99, "red"),),
            least=None,
            most=1,
            stepped=True,
            runbook="the-pipeline",
            decimals=2,
        ),
        lines(
            "Time since the last run",
            "Rises until the pipeline runs again.",
            {"since": "time() - max(pipeline_last_run_timestamp_seconds)"},
            "s",
            runbook="the-pipeline",
        ),
    ],
}
