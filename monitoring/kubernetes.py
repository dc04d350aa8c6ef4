"""Write the Prometheus rules for the Prometheus operator: `python -m monitoring.kubernetes`.

Writes `deploy/kubernetes/components/monitoring/prometheus-rule.yaml` from
`monitoring/prometheus/rules`. Run it after a change there; a test compares the two.
"""

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
RULES = ROOT / "monitoring/prometheus/rules"
TARGET = ROOT / "deploy/kubernetes/components/monitoring/prometheus-rule.yaml"
_HEAD = (
    "# Made by `python -m monitoring.kubernetes` from monitoring/prometheus/rules: change those.\n"
)


def rendered() -> str:
    """Return the text of a PrometheusRule with the groups of all rule files."""
    files = [yaml.safe_load(path.read_text("utf-8")) for path in sorted(RULES.glob("*.yml"))]
    manifest = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {
            "name": "digit-platform",
            "labels": {"app.kubernetes.io/name": "digit-platform"},
        },
        "spec": {"groups": [group for file in files for group in file["groups"]]},
    }
    text: str = yaml.safe_dump(manifest, sort_keys=False, width=100)
    return _HEAD + text


if __name__ == "__main__":
    TARGET.write_text(rendered(), encoding="utf-8")
