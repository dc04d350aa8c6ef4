"""Prometheus exporter of the pipeline: `python -m monitoring.pipeline_exporter`, port 9109.

Each scrape reads the files in `reports/` and the model registry. A value that is missing or
unreadable has no series, and never keeps the others from being exported.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
# A scrape times out after 10 s, so MLflow gets 3 s and no retries.
_MLFLOW_LIMITS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "3", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
_GATE = "gate."  # prefix of the tags in which `pipeline.register` keeps the gates' results
_Series = Iterable[tuple[tuple[str, ...], object]]  # label values and value


def main(arguments: list[str] | None = None) -> None:
    """Answer scrapes until SIGINT or SIGTERM."""
    options = _options(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name, value in _MLFLOW_LIMITS.items():
        os.environ.setdefault(name, value)
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


class PipelineCollector(Collector):
    """Collect all metrics anew at each scrape."""

    def __init__(self, reports: Path, registry: str) -> None:
        self._reports, self._uri = reports, registry
        self._client: MlflowClient | None = None

    def describe(self) -> Iterable[Metric]:
        """Describe nothing: registering the collector must not ask MLflow."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the metric families in the order of docs/MONITORING.md."""
        answer = self._ask_registry()
        ended, versions, aliases = answer or (None, [], {})
        times = [time for time in (*_times(self._reports), ended) if time]
        last = [((), max(times))] if times else []
        yield _family("last_run_timestamp_seconds", "When the pipeline last wrote metrics.", last)
        runs = _object(_read(self._reports / "comparison.json").get("runs"))
        for name, key in (("test", "test_accuracy"), ("validation", "val_accuracy")):
            values = [((run,), _object(metrics).get(key)) for run, metrics in runs.items()]
            about = f"Accuracy of a run of the last comparison on the {name} set."
            yield _family(f"{name}_accuracy", about, values, "run")
        if answer:
            yield from _registered(versions, aliases)
        up = [((), int(answer is not None))]
        yield _family("registry_up", "1 if MLflow answers, else 0.", up)

    def _ask_registry(self) -> tuple[float | None, list[ModelVersion], dict[str, str]] | None:
        """Return the last run's end, all versions and the aliases; None if MLflow fails."""
        if self._uri.startswith("sqlite:///") and not Path(self._uri[10:]).exists():
            return None  # MLflow would create the file
        from mlflow import MlflowClient  # takes seconds
        from mlflow.exceptions import MlflowException

        try:
            client = self._client = self._client or MlflowClient(self._uri, self._uri)
            models = client.search_registered_models(f"name = '{MODEL}'")
            versions = list(client.search_model_versions(f"name = '{MODEL}'"))
            aliases = {name: str(number) for m in models for name, number in m.aliases.items()}
            return _last_end(client), versions, aliases
        except (MlflowException, OSError) as error:
            logger.warning("the registry does not answer: %s", str(error)[:200])
            return None


def _last_end(client: MlflowClient) -> float | None:
    """Return when the experiment's latest run ended, in seconds since 1970."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if not experiment:
        return None
    order = ["attributes.end_time DESC"]
    runs = client.search_runs([experiment.experiment_id], order_by=order, max_results=1)
    return max((run.info.end_time or 0 for run in runs), default=0) / 1000


def _times(reports: Path) -> Iterator[float]:
    """Yield when the timings were written, and when a version was last promoted."""
    with suppress(FileNotFoundError):
        # Neither Git nor DVC restores this file, so its modification time is that of the run.
        yield (reports / "timings.json").stat().st_mtime
    promotions = reports / "promotions.jsonl"
    try:
        last = promotions.read_bytes().splitlines()[-1]
        yield datetime.fromisoformat(json.loads(last)["at"]).timestamp()
    except FileNotFoundError:
        return
    except (IndexError, KeyError, OSError, OverflowError, TypeError, ValueError):
        logger.warning("%s: the last line cannot be read", promotions)


def _read(file: Path) -> dict[str, Any]:
    """Read a JSON object; return an empty one if the file is missing or unreadable."""
    try:
        return _object(json.loads(file.read_bytes()))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        logger.warning("%s cannot be read: %s", file, error)
        return {}


def _object(found: object) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}


def _registered(versions: list[ModelVersion], aliases: dict[str, str]) -> Iterator[Metric]:
    """Yield what the registry says of its versions, from their tags."""
    for name, tag, data in (
        ("version_accuracy", "test_accuracy", "the test set"),
        ("version_feedback_accuracy", "feedback_accuracy", "held-out user feedback"),
    ):
        values = [((str(version.version),), version.tags.get(tag)) for version in versions]
        yield _family(name, f"Accuracy of a registered version on {data}.", values, "model_version")
    pointing = [(pair, 1) for pair in aliases.items()]
    about = "Always 1: the version that an alias points to."
    yield _family("alias", about, pointing, "alias", "model_version")
    checked = [v for v in versions if any(tag.startswith(_GATE) for tag in v.tags)]
    newest = max(checked, key=lambda version: int(version.version), default=None)
    gates = [
        ((tag.removeprefix(_GATE),), int(result.startswith("passed")))
        for tag, result in (newest.tags.items() if newest else ())
        if tag.startswith(_GATE)
    ]
    about = "1 if the newest checked version passed a promotion gate, else 0."
    yield _family("gate_passed", about, gates, "gate")


def _family(name: str, about: str, series: _Series, *labels: str) -> GaugeMetricFamily:
    """Return a gauge with the series whose value is a finite number, or the text of one."""
    family = GaugeMetricFamily(f"pipeline_{name}", about, labels=labels)
    for values, found in series:
        with suppress(OverflowError, TypeError, ValueError):
            number = math.nan if isinstance(found, bool) else float(found)  # type: ignore[arg-type]
            if math.isfinite(number):
                family.add_metric(values, number)
    return family


if __name__ == "__main__":
    main()
