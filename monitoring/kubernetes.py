"""`python -m monitoring.kubernetes [--runbook URL]`: the rules for the Prometheus operator.

Writes `deploy/kubernetes/components/monitoring/prometheus-rule.yaml`, from
`monitoring/prometheus/rules`. To be run after a change there; a test holds the two equal.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
RULES = ROOT / "monitoring/prometheus/rules"
RUNBOOK = "docs/RUNBOOK.md"
TARGET = ROOT / "deploy/kubernetes/components/monitoring/prometheus-rule.yaml"
_HEAD = (
    "# Made by `python -m monitoring.kubernetes` from monitoring/prometheus/rules: change those.\n"
)


def groups() -> list[dict[str, Any]]:
    """All groups of all rule files."""
    files = [yaml.safe_load(path.read_text()) for path in sorted(RULES.glob("*.yml"))]
    return [group for file in files for group in file["groups"]]


def rendered(runbook: str = RUNBOOK) -> str:
    """The file's text; `runbook`: where readers of alerts find it."""
    manifest = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {
            "name": "digit-platform",
            "labels": {"app.kubernetes.io/name": "digit-platform"},
        },
        "spec": {"groups": groups()},
    }
    text: str = yaml.safe_dump(manifest, sort_keys=False, width=100)
    return _HEAD + text.replace(f"runbook_url: {RUNBOOK}", f"runbook_url: {runbook}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m monitoring.kubernetes", description=__doc__)
    parser.add_argument("--runbook", default=RUNBOOK, help="where your readers find it")
    TARGET.write_text(rendered(parser.parse_args().runbook))
