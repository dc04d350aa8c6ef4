"""Prometheus exporter of the pipeline: `python -m monitoring.pipeline_exporter`, port 9109.

Each scrape reads the files in `reports/` and the model registry. A value that is missing or
unreadable has no series, and never keeps the others from being exported.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

logger = logging.getLogger(__name__)

MODEL = "mnist-classifier"
EXPERIMENT = "mnist"
PORT = 9109
_GATE = "gate."  # prefix of the tags in which `pipeline.register` keeps the gates' results


def main(arguments: list[str] | None = None) -> None:
    """Answer scrapes until SIGINT or SIGTERM."""
    options = _options(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # A scrape times out after 10 s, so MLflow gets 3 s and no retries.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    registry = CollectorRegistry()
    registry.register(PipelineCollector(options.reports, options.registry))
    server, thread = start_http_server(options.port, options.address, registry)
    logger.info("serving metrics on http://%s:%s/metrics", *server.server_address[:2])
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        thread.join()
    server.shutdown()


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m monitoring.pipeline_exporter", description=__doc__, allow_abbrev=False
    )
    local = f"sqlite:///{Path.cwd() / 'mlflow.db'}"
    parser.add_argument("--address", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=PORT, help="port to listen on; 0 is any free")
    parser.add_argument("--reports", type=Path, default=Path("reports"), help="folder of reports")
    parser.add_argument(
        "--registry",
        default=os.environ.get("MLFLOW_TRACKING_URI") or local,
        help="address of MLflow; MLFLOW_TRACKING_URI, or mlflow.db in the working folder",
    )
    return parser.parse_args(arguments)


class Registered(NamedTuple):
    """What MLflow knows: when the last run ended (since 1970), the versions and their aliases."""

    ended: float
    versions: list[ModelVersion]
    aliases: dict[str, str]


class PipelineCollector(Collector):
    """Collect all metrics anew at each scrape."""

    def __init__(self, reports: Path, registry: str) -> None:
        self._reports, self._uri = reports, registry

    def describe(self) -> Iterable[Metric]:
        """Describe nothing: registering the collector must not ask MLflow."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the metric families in the order of docs/MONITORING.md."""
        found = self._ask_registry()
        times = list(_times(self._reports, found))
        last = {(): max(times)} if times else {}
        yield _family("last_run_timestamp_seconds", "When the pipeline last wrote metrics.", last)
        runs = _runs(self._reports / "comparison.json")
        for name, key in (("test", "test_accuracy"), ("validation", "val_accuracy")):
            values = {(run,): metrics.get(key) for run, metrics in runs.items()}
            about = f"Accuracy of a run of the last comparison on the {name} set."
            yield _family(f"{name}_accuracy", about, values, "run")
        if found:
            yield from _registered(found)
        yield _family("registry_up", "1 if MLflow answers, else 0.", {(): found is not None})

    def _ask_registry(self) -> Registered | None:
        if self._uri.startswith("sqlite:///") and not Path(self._uri[10:]).exists():
            return None  # MLflow would create the file
        from mlflow import MlflowClient  # takes seconds
        from mlflow.exceptions import MlflowException

        try:
            client = MlflowClient(self._uri, self._uri)
            models = client.search_registered_models(f"name = '{MODEL}'")
            versions = list(client.search_model_versions(f"name = '{MODEL}'"))
            aliases = {name: str(number) for m in models for name, number in m.aliases.items()}
            return Registered(_last_end(client), versions, aliases)
        except (MlflowException, OSError) as error:
            logger.warning("the registry does not answer: %s", str(error)[:200])
            return None


def _last_end(client: MlflowClient) -> float:
    """Return when the experiment's latest run ended, in seconds since 1970; 0 if none did."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if not experiment:
        return 0
    order = ["attributes.end_time DESC"]
    runs = client.search_runs([experiment.experiment_id], order_by=order, max_results=1)
    return max((run.info.end_time or 0 for run in runs), default=0) / 1000


def _times(reports: Path, found: Registered | None) -> Iterator[float]:
    """Yield when the timings were written, the last run ended and versions were promoted."""
    with suppress(FileNotFoundError):
        # Neither Git nor DVC restores this file, so its modification time is that of the run.
        yield (reports / "timings.json").stat().st_mtime
    if found and found.ended:
        yield found.ended
    for version in found.versions if found else ():
        with suppress(KeyError, ValueError):  # never promoted, or not a date
            yield datetime.fromisoformat(version.tags["promoted_at"]).timestamp()


def _runs(comparison: Path) -> dict[str, Any]:
    """Return the compared runs' metrics; none if the file is missing or unreadable."""
    try:
        return dict(json.loads(comparison.read_bytes())["runs"])
    except FileNotFoundError:
        return {}
    except (IndexError, KeyError, OSError, TypeError, ValueError) as error:
        logger.warning("%s cannot be read: %r", comparison, error)
        return {}


def _registered(found: Registered) -> Iterator[Metric]:
    """Yield what the registry says of its versions, from their tags."""
    for name, tag, data in (
        ("version_accuracy", "test_accuracy", "the test set"),
        ("version_feedback_accuracy", "feedback_accuracy", "held-out user feedback"),
    ):
        values = {(str(version.version),): version.tags.get(tag) for version in found.versions}
        yield _family(name, f"Accuracy of a registered version on {data}.", values, "model_version")
    about = "Always 1: the version that an alias points to."
    pointing = dict.fromkeys(found.aliases.items(), 1)
    yield _family("alias", about, pointing, "alias", "model_version")
    checked = [v for v in found.versions if any(tag.startswith(_GATE) for tag in v.tags)]
    newest = max(checked, key=lambda version: int(version.version), default=None)
    gates = {
        (tag.removeprefix(_GATE),): result.startswith("passed")
        for tag, result in (newest.tags.items() if newest else ())
        if tag.startswith(_GATE)
    }
    about = "1 if the newest checked version passed a promotion gate, else 0."
    yield _family("gate_passed", about, gates, "gate")


def _family(name: str, about: str, values: Mapping[Any, object], *labels: str) -> GaugeMetricFamily:
    """Return a gauge with a series for each number, or text of one; `values`: by label values."""
    family = GaugeMetricFamily(f"pipeline_{name}", about, labels=labels)
    for series, value in values.items():
        with suppress(TypeError, ValueError):  # not a number
            family.add_metric(series, float(value))  # type: ignore[arg-type]
    return family


if __name__ == "__main__":
    main()
