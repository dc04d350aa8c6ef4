"""Scale all durations in the files of Prometheus and Alertmanager, for tests and drills.

Writes copies of the files in `monitoring/` into a folder, with every interval, range, offset and
wait multiplied by a factor. So an alert that takes hours fires in seconds. Numbers such as
`90 * 86400`, names and texts stay.
"""

from __future__ import annotations

import argparse
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

SOURCE = Path(__file__).parents[2] / "monitoring"
FILES = ("prometheus/prometheus.yml", "prometheus/rules/*.yml", "alertmanager/alertmanager.yml")

_MILLISECONDS = {
    "ms": 1,
    "s": 1000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
    "y": 31_536_000_000,
}
_PART = re.compile(r"(\d+)(ms|[smhdwy])")
_DURATION = r"(?:\d+(?:ms|[smhdwy]))+"
_IN_EXPRESSION = re.compile(rf"(?<=\[){_DURATION}|(?<=:){_DURATION}(?=\])|(?<=offset ){_DURATION}")


def duration(text: str, factor: Fraction) -> str:
    """Multiply a duration such as `1h30m`; the result is at least a millisecond."""
    total = sum(int(count) * _MILLISECONDS[unit] for count, unit in _PART.findall(text))
    return f"{max(1, round(total * factor))}ms" if total else text


def expression(text: str, factor: Fraction) -> str:
    """Scale the ranges, subquery steps and offsets of a PromQL expression."""
    return _IN_EXPRESSION.sub(lambda found: duration(found[0], factor), text)


def scaled(content: Any, factor: Fraction, key: str = "") -> Any:
    """Scale every duration in the content of a YAML file."""
    if isinstance(content, dict):
        return {name: scaled(value, factor, name) for name, value in content.items()}
    if isinstance(content, list):
        return [scaled(value, factor, key) for value in content]
    if not isinstance(content, str):
        return content
    if key == "expr":
        return expression(content, factor)
    return duration(content, factor) if re.fullmatch(_DURATION, content) else content


def main(factor: Fraction, folder: Path) -> None:
    """Write the scaled files."""
    for pattern in FILES:
        for path in SOURCE.glob(pattern):
            target = folder / path.relative_to(SOURCE)
            target.parent.mkdir(parents=True, exist_ok=True)
            content = scaled(yaml.safe_load(path.read_text()), factor)
            target.write_text(yaml.safe_dump(content, sort_keys=False))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m support.time_scale", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("factor", type=Fraction, help="such as 1/60: an hour becomes a minute")
    parser.add_argument("folder", type=Path, help="where the copies go")
    options = parser.parse_args()
    main(options.factor, options.folder)
