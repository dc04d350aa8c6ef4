"""Check the service for data drift: compare its latest predictions with its model's reference.

Exit status: 0 without drift or with too few images, 3 with drift, 1 if no replica could be asked.
With --every the checks repeat, and Prometheus can scrape the results.
"""

import argparse
import logging
import math
import os
import signal
import sys
import time
from pathlib import Path
from threading import Event

from prometheus_client import start_http_server

from monitoring.drift import report
from monitoring.drift.drift_tests import LATEST, NEEDED, Findings, check
from monitoring.drift.prometheus_gauges import Gauges
from monitoring.drift.service_client import ReplicasError, fetch
from serve.models.drift_reference import Reference, features

logger = logging.getLogger("monitoring.drift")

_HOUR = 3600 * 10**9  # nanoseconds
NO_DRIFT, FAILED, DRIFT = 0, 1, 3  # 2 is argparse's


def main(arguments: list[str] | None = None) -> int:
    """Check once and return the exit status, or check again and again."""
    options = parse_options(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    stopping = Event()

    def stop(*_: object) -> None:
        stopping.set()
        sys.exit(0)

    # As process 1 of a container it would ignore SIGTERM. Inside a callback of the garbage
    # collector the SystemExit is lost: hence the event too.
    signal.signal(signal.SIGTERM, stop)
    if not options.every:
        findings = _check(options, None)
        return FAILED if findings is None else DRIFT if findings.drifted else NO_DRIFT
    gauges = Gauges()
    start_http_server(options.port, options.address, registry=gauges.registry)
    while not stopping.is_set():
        try:
            _check(options, gauges)
        except Exception:  # such as a full disk: the next check may succeed
            logger.exception("the check failed")
        stopping.wait(options.every)
    return NO_DRIFT


def _check(options: argparse.Namespace, gauges: Gauges | None) -> Findings | None:
    """Check once, set the gauges, write the report; None if no replica could be asked."""
    key = os.environ.get("API_KEYS", "").split(",")[0].strip()
    since = time.time_ns() - int(options.hours * _HOUR)
    try:
        urls = options.url or ["http://127.0.0.1:8000"]
        response = fetch(urls, key, LATEST, since, options.model)
    except ReplicasError as error:
        logger.error("no replica could be asked: %s", error)
        return None
    predictions = response.predictions
    window = Reference(predictions.probabilities, features(predictions.images))
    findings = check(window, response.reference, response.labels)
    if gauges:
        gauges.show(findings)
    report.write(options.out, response, window, findings)
    checked = f"version {response.version}, {findings.images:,} images"
    page = options.out / "index.html"
    if findings.drifted:
        logger.warning("data drift: %s: %s: %s", checked, ", ".join(findings.drifted), page)
    elif findings.enough:
        logger.info("no data drift: %s", checked)
    else:
        logger.info("too few images: %s; the tests need %d", checked, NEEDED)
    return findings


def parse_options(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m monitoring.drift",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    option = parser.add_argument
    option(
        "--url",
        action="append",
        help="address of a service (http://127.0.0.1:8000); may be repeated; all replicas behind a"
        " name are asked; the API key is the first of API_KEYS in the environment",
    )
    option("--model", default="", help="name of a served model (the service's default)")
    out = Path("build/drift")
    option("--out", type=Path, default=out, help="folder for the report (build/drift)")
    option("--hours", type=_positive, default=24, help="maximum age of the predictions (24)")
    option("--every", type=_positive, help="repeat the check every so many seconds")
    option("--address", default="127.0.0.1", help="address of /metrics with --every (127.0.0.1)")
    option("--port", type=int, default=9108, help="port of /metrics with --every (9108)")
    return parser.parse_args(arguments)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError("must be more than 0")
    return value


if __name__ == "__main__":
    sys.exit(main())
