"""`python -m monitoring.grafana [--runbook URL]`: writes `monitoring/grafana/dashboards/*.json`."""

from __future__ import annotations

import argparse
from pathlib import Path

from monitoring.grafana import boards

FOLDER = Path(__file__).parent / "dashboards"


def main(arguments: list[str] | None = None) -> None:
    """Writes a file for each dashboard."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.grafana", description=__doc__)
    parser.add_argument(
        "--runbook", default=boards.RUNBOOK, help="where your readers find docs/RUNBOOK.md"
    )
    options = parser.parse_args(arguments)
    for name, text in boards.rendered(options.runbook).items():
        (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
