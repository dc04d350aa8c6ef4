"""The standard `process_*` metrics, of all processes of the service together (Linux only).

https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics
"""

import os
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from prometheus_client import ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

_OF_ONE = {"process_start_time_seconds", "process_max_fds"}  # the smallest, the others are summed


class ProcessMetrics(Collector):
    """CPU, memory and open files of this process's parent and all its children."""

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; called at each scrape."""
        parent = Path(f"/proc/{os.getppid()}")
        children = parent / "task" / parent.name / "children"
        if not children.exists():
            return
        found: dict[str, list[Metric]] = {}
        for pid in (parent.name, *children.read_text().split()):
            for metric in ProcessCollector(pid=partial(str, pid), registry=None).collect():
                found.setdefault(metric.name, []).append(metric)
        for name, (metric, *others) in found.items():
            (sample,) = metric.samples
            values = [sample.value, *(other.samples[0].value for other in others)]
            if name == "process_cpu_seconds":
                values.append(_reaped_seconds(parent))
            value = min(values) if name in _OF_ONE else total(values)
            metric.samples = [sample._replace(value=value)]
            yield metric


def total(values: Iterable[float]) -> float:
    """Return the sum to the microsecond: the same seconds of other processes give the same number.

    A counter that falls by a rounding error is a counter that starts anew, to Prometheus.
    """
    return round(sum(values), 6)


def _reaped_seconds(process: Path) -> float:
    """Return the CPU time of the children that have ended, so that the sum never falls."""
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[13:15])) / os.sysconf("SC_CLK_TCK")
