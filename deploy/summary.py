"""Print the comparison of the runs as a Markdown table: `python -m deploy.summary`."""

from __future__ import annotations

import json
import sys
from typing import Any

from pipeline.config import paths
from pipeline.reports import tables


def markdown(comparison: dict[str, Any]) -> str:
    """Return a row for each run, the best one bold."""
    titles = [title.replace("\n", " ") for title in tables.COLUMNS]
    lines = [titles, ["---"] * len(titles)]
    for run, cells in tables.rows(comparison).items():
        lines.append([f"**{cell}**" for cell in cells] if run == comparison["best"] else cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.stdout.write(markdown(json.loads(paths.COMPARISON.read_text())) + "\n")
