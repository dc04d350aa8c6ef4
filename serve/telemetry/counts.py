"""Numbers of `prometheus_client` in files that processes share, at less than half of its own cost.

Each of its values looks for a fork and for its place in the file whenever it counts, and each
metric checks first what cannot be wrong here. With a dozen counts per request that took 6 % of the
throughput (`make bench-serve`). The files are the library's, whose `MultiProcessCollector` reads
them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

from prometheus_client import Counter, Gauge, Histogram, values
from prometheus_client.mmap_dict import MmapedDict, mmap_key

Count = Callable[[float], None]


def share(folder: Path, process: str) -> None:
    """Lets this process's metrics count in the folder, under a name that no other has now.

    Before any metric is made. A process that takes the place of a dead one takes over its name, and
    so counts on where that ended; the folder does not grow.
    """
    files: dict[str, MmapedDict] = {}
    lock = Lock()  # batches count in threads of their own

    class Value:
        """A number of a metric, which has many if it has labels or buckets."""

        __slots__ = ("inc", "set")

        def __init__(
            self,
            kind: str,
            metric: str,
            name: str,
            labels: list[str],
            label_values: list[str],
            documentation: str,
            multiprocess_mode: str = "",
            **_: Any,  # noqa: ANN401 - what the library may add
        ) -> None:
            # The name says to the collector how to put the processes' values together.
            kept = f"{kind}_{multiprocess_mode}" if kind == "gauge" else kind
            key = mmap_key(metric, name, labels, label_values, documentation)
            with lock:
                if kept not in files:
                    files[kept] = MmapedDict(str(folder / f"{kept}_{process}.db"))
                file = files[kept]
                file.read_value(key)
                place = file._positions[key] // 8
                # Where the file grows it is mapped anew, and this map is the same memory still.
                numbers = memoryview(file._m).cast("d")

            def inc(amount: float) -> None:
                with lock:
                    numbers[place] += amount

            def set_to(value: float, timestamp: float | None = None) -> None:
                with lock:
                    numbers[place] = value
                    numbers[place + 1] = timestamp or 0.0

            self.inc, self.set = inc, set_to

    values.ValueClass = Value


def adding(metric: Counter | Gauge) -> Count:
    """What adds to the metric; a counter's caller must add no less than 0."""
    add: Count = metric._value.inc
    return add


def observing(histogram: Histogram) -> Count:
    """What `Histogram.observe` does; the amount must not be NaN."""
    add = histogram._sum.inc
    buckets = [bucket.inc for bucket in histogram._buckets]
    bounds = histogram._upper_bounds

    def observe(amount: float) -> None:
        add(amount)
        buckets[bisect_left(bounds, amount)](1)

    return observe
