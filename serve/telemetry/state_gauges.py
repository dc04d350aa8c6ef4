"""Gauges of the models in service and of the disk."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serve.settings import VERSION

_MODEL_INFO = ("model_name", "model_version", "run", "sha256", "precision")


class ModelState(NamedTuple):
    """A model in service.

    `labels`: of `model_info`. `created`: when the version, or the bundle in a folder, was created,
    in seconds since 1970. `shares`: of each predicted class in its reference.
    """

    labels: dict[str, str]
    created: float
    shares: Mapping[int | str, float]


class State(NamedTuple):
    """The state of the process that answers a scrape.

    `checked`: when the registry was last read, in seconds since 1970. It is 0 if it never was, or
    need not be. `free`: bytes on the disk of STATE_DIR. `commit`: of the code.
    """

    ready: bool
    degraded: bool
    models: list[ModelState]
    checked: float
    free: int
    commit: str


class StateGauges(Collector):
    """Gauges that are made at each scrape; a Gauge would keep those of old versions."""

    def __init__(self, state: Callable[[], State]) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges."""
        state = self._state()
        yield GaugeMetricFamily("model_ready", "1 if predictions are possible.", state.ready)
        yield GaugeMetricFamily(
            "model_degraded", "1 if the newest version may not be in service.", state.degraded
        )
        checked = GaugeMetricFamily(
            "model_last_check_timestamp_seconds",
            "Time of the last check of the registry that ended well, in seconds since 1970.",
        )
        if state.checked:
            checked.add_metric((), state.checked)
        yield checked
        build = GaugeMetricFamily(
            "build_info", "The code of the service.", labels=("version", "commit")
        )
        build.add_metric((VERSION, state.commit), 1)
        yield build
        text = "Free space on the disk of STATE_DIR."
        yield GaugeMetricFamily("state_free_bytes", text, state.free)
        info = GaugeMetricFamily("model_info", "The model in service.", labels=_MODEL_INFO)
        created = GaugeMetricFamily(
            "model_created_timestamp_seconds",
            "Creation time of the version in service, in seconds since 1970.",
            labels=("model_version",),
        )
        shares = GaugeMetricFamily(
            "model_reference_class_ratio",
            "Share of each predicted class among the validation images of the reference.",
            labels=("model_version", "predicted_class"),
        )
        for labels, made, mix in state.models:
            version = labels["model_version"]
            info.add_metric([labels[label] for label in _MODEL_INFO], 1)
            created.add_metric((version,), made)
            for label, share in mix.items():
                shares.add_metric((version, str(label)), share)
        yield info
        yield created
        yield shares
