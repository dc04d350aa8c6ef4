"""The service without its counters, for comparison: `python -m bench.unwatched`."""

from __future__ import annotations

from prometheus_client import Gauge

from serve import __main__
from serve.metrics import Metrics


def nothing(*_: object, **__: object) -> None:
    """In place of what counts."""


if __name__ == "__main__":
    for kind, names in (
        (Metrics, ("predicted", "doubted", "answered", "failed")),
        (Gauge, ("inc", "dec")),
    ):
        for name in names:
            setattr(kind, name, nothing)
    __main__.main()
