"""The service without its counters, for comparison: `python -m bench.uncounted`."""

from serve import __main__
from serve.telemetry.metrics import Metrics


def nothing(*_: object, **__: object) -> None:
    """Do nothing, in place of a method that counts."""


if __name__ == "__main__":
    for name in ("began", "predicted", "answered", "failed"):
        setattr(Metrics, name, nothing)
    __main__.main()
