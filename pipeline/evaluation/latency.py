"""How long things take: measured apart from all figures that must come out the same each time."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from filelock import FileLock

from pipeline.config import paths
from pipeline.data.dataset import Images
from pipeline.storage.files import write_json

logger = logging.getLogger(__name__)


def latency(
    predict: Callable[[Images], object], images: Images, batch: int = 1, calls: int = 1000
) -> tuple[float, float]:
    """Median and 99th percentile, in milliseconds, of `predict` on `batch` images at a time.

    Goes through `images` in turn. The first tenth of `calls` comes on top and does not count.
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


def record(run: int, **figures: float) -> None:
    """Adds figures of one run to `paths.TIMINGS`; stages that run side by side lose nothing."""
    paths.TIMINGS.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(paths.TIMINGS.with_name(f".{paths.TIMINGS.name}.lock")):
        runs = read()
        rounded = {name: round(value, 4) for name, value in figures.items()}
        runs[str(run)] = runs.get(str(run), {}) | rounded
        write_json(paths.TIMINGS, dict(sorted(runs.items(), key=lambda item: int(item[0]))))


def read() -> dict[str, dict[str, float]]:
    """Figures by run; none if there is no file or no sense in it: no stage depends on them."""
    try:
        content: Any = json.loads(paths.TIMINGS.read_bytes())
        return {str(int(run)): dict(figures) for run, figures in content.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        logger.warning("%s is unreadable and starts anew: %s", paths.TIMINGS, error)
        return {}
