"""`python -m monitoring.kubernetes`: the rules as the Prometheus operator reads them.

Writes `deploy/kubernetes/components/monitoring/prometheus-rule.yaml`, from
`monitoring/prometheus/rules`. To be run after a change there; a test holds the two equal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
RULES = ROOT / "monitoring/prometheus/rules"
TARGET = ROOT / "deploy/kubernetes/components/monitoring/prometheus-rule.yaml"
_HEAD = (
    "# Made by `python -m monitoring.kubernetes` from monitoring/prometheus/rules: change those.\n"
)


def groups() -> list[dict[str, Any]]:
    """All groups of all rule files."""
    files = [yaml.safe_load(path.read_text()) for path in sorted(RULES.glob("*.yml"))]
    return [group for file in files for group in file["groups"]]


def rendered() -> str:
    """The file's text."""
    manifest = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {
            "name": "digit-platform",
            "labels": {"app.kubernetes.io/name": "digit-platform"},
        },
        "spec": {"groups": groups()},
    }
    return f"{_HEAD}{yaml.safe_dump(manifest, sort_keys=False, width=100)}"


if __name__ == "__main__":
    TARGET.write_text(rendered())
