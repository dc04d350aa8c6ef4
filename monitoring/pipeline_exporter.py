"""The pipeline's figures for Prometheus: `python -m monitoring.pipeline_exporter`, port 9109.

Reads at each scrape what the pipeline left in `reports/` and what the registry says. What is not
there has no series: nothing is made up, and nothing stops it from answering.
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
_PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "3", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
_GATE = "gate."  # begins the tags in which `pipeline.register` leaves its findings


def main(arguments: list[str] | None = None) -> None:
    """Answers scrapes until it is stopped."""
    options = _options(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name, value in _PATIENCE.items():  # a scrape waits no longer than 10 s
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
        prog="python -m monitoring.pipeline_exporter", description=__doc__
    )
    local = f"sqlite:///{Path.cwd() / 'mlflow.db'}"
    parser.add_argument("--address", default="127.0.0.1", help="to listen on")
    parser.add_argument("--port", type=int, default=PORT, help="0 is any free one")
    parser.add_argument("--reports", type=Path, default=Path("reports"), help="their folder")
    parser.add_argument(
        "--registry",
        default=os.environ.get("MLFLOW_TRACKING_URI") or local,
        help="MLflow's address; MLFLOW_TRACKING_URI, or mlflow.db in the working folder",
    )
    return parser.parse_args(arguments)


class PipelineCollector(Collector):
    """Read anew at each scrape."""

    def __init__(self, reports: Path, registry: str) -> None:
        self._reports, self._uri = reports, registry
        self._client: MlflowClient | None = None

    def describe(self) -> Iterable[Metric]:
        """Nothing before a scrape: registering must not ask MLflow."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The families in the order of the docs."""
        told = self._told()
        ended = [*_times(self._reports), *([told[0]] if told and told[0] else [])]
        last = _family("last_run_timestamp_seconds", "When the pipeline last left figures.")
        if ended:
            last.add_metric((), max(ended))
        yield last
        yield from _accuracies(_read(self._reports / "comparison.json"))
        yield from _registered(told[1], told[2]) if told else ()
        up = _family("registry_up", "Whether MLflow answers.")
        up.add_metric((), told is not None)
        yield up

    def _told(self) -> tuple[float, list[ModelVersion], dict[str, str]] | None:
        """When the latest run ended, all versions, and which has an alias; None without MLflow."""
        if self._uri.startswith("sqlite:///") and not Path(self._uri[10:]).exists():
            return None  # MLflow would make the file
        from mlflow import MlflowClient  # takes seconds
        from mlflow.exceptions import MlflowException

        try:
            client = self._client = self._client or MlflowClient(self._uri, self._uri)
            found = client.search_registered_models(f"name = '{MODEL}'")
            versions = list(client.search_model_versions(f"name = '{MODEL}'"))
            aliases = {name: str(number) for m in found for name, number in m.aliases.items()}
            return _ended(client), versions, aliases
        except (MlflowException, OSError) as error:
            logger.warning("the registry does not answer: %s", str(error)[:200])
            return None


def _ended(client: MlflowClient) -> float:
    """When the latest run of the experiment ended, in seconds; 0 without any."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if not experiment:
        return 0.0
    order = ["attributes.end_time DESC"]
    runs = client.search_runs([experiment.experiment_id], order_by=order, max_results=1)
    return max((run.info.end_time or 0 for run in runs), default=0) / 1000


def _times(reports: Path) -> Iterator[float]:
    """When what differs from run to run was written, and when something was promoted."""
    with suppress(FileNotFoundError):
        # Git and DVC leave it alone, so its date is true.
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
    """A JSON object; an empty one if it is missing, being written, or none that can be read."""
    try:
        found = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        logger.warning("%s cannot be read: %s", file, error)
        return {}
    return _object(found)


def _object(found: Any) -> dict[str, Any]:  # noqa: ANN401 - as JSON has it
    """What was found, or an empty object if it is none."""
    return found if isinstance(found, dict) else {}


def _number(found: Any) -> float | None:  # noqa: ANN401 - as JSON, or a tag, has it
    """What was found, if it is a number or the text of one."""
    try:
        number = math.nan if isinstance(found, bool) else float(found)
    except (OverflowError, TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _accuracies(comparison: dict[str, Any]) -> Iterator[Metric]:
    for name, key in (("test", "test_accuracy"), ("validation", "val_accuracy")):
        family = _family(f"{name}_accuracy", f"Of a run in the last comparison, {name} set.", "run")
        for run, figures in _object(comparison.get("runs")).items():
            found = _number(_object(figures).get(key))
            if found is not None:
                family.add_metric((run,), found)
        yield family


def _registered(versions: list[ModelVersion], aliases: dict[str, str]) -> Iterator[Metric]:
    for name, tag, of in (
        ("version_accuracy", "test_accuracy", "test set"),
        ("version_feedback_accuracy", "feedback_accuracy", "held-out feedback"),
    ):
        accuracy = _family(name, f"Of a registered version, {of}.", "model_version")
        for version in versions:
            found = _number(version.tags.get(tag))
            if found is not None:
                accuracy.add_metric((str(version.version),), found)
        yield accuracy
    pointing = _family("alias", "Always 1: what an alias points at.", "alias", "model_version")
    for alias, number in aliases.items():
        pointing.add_metric((alias, number), 1)
    yield pointing
    gates = _family("gate_passed", "Of the newest version that was judged.", "gate")
    judged = [v for v in versions if any(tag.startswith(_GATE) for tag in v.tags)]
    newest = max(judged, key=lambda version: int(version.version), default=None)
    for tag, finding in newest.tags.items() if newest else ():
        if tag.startswith(_GATE):
            gates.add_metric((tag.removeprefix(_GATE),), finding.startswith("passed"))
    yield gates


def _family(name: str, about: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"pipeline_{name}", about, labels=labels)


if __name__ == "__main__":
    main()
