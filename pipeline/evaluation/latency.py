"""Latency and durations, kept apart from the metrics, which are the same each time."""

import time
from collections.abc import Callable

import numpy as np
from filelock import FileLock

from pipeline.config import paths
from pipeline.data.dataset import Images
from pipeline.storage.files import read_json, write_json


def latency(
    predict: Callable[[Images], object], images: Images, batch: int = 1, calls: int = 1000
) -> tuple[float, float]:
    """Return median and 99th percentile, in milliseconds, of `predict` on batches of images.

    It goes through `images` in turn. A warm-up of a tenth of `calls` comes first, not counted.
    """
    warm_up = max(1, calls // 10)
    times = []
    for call in range(warm_up + calls):
        some = images.take(range(call * batch, (call + 1) * batch), axis=0, mode="wrap")
        started = time.perf_counter()
        predict(some)
        times.append(time.perf_counter() - started)
    median, tail = np.percentile(times[warm_up:], (50, 99)) * 1000
    return float(median), float(tail)


def recorded() -> dict[str, dict[str, float]]:
    """Return the timings of `paths.TIMINGS` by run; none if nothing was measured here."""
    return read_json(paths.TIMINGS)


def record(run: int, **timings: float) -> None:
    """Add timings of one run to `paths.TIMINGS`; parallel stages lose none."""
    paths.TIMINGS.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(paths.TIMINGS.with_name(f".{paths.TIMINGS.name}.lock")):
        runs = recorded()
        rounded = {name: round(value, 4) for name, value in timings.items()}
        runs[str(run)] = runs.get(str(run), {}) | rounded
        write_json(paths.TIMINGS, dict(sorted(runs.items(), key=lambda item: int(item[0]))))
