"""Compares what a service answered lately with what its model was evaluated on.

Ends with 0 if there is no drift or too few images to tell, with 3 if there is drift, with 1 if no
replica could be asked. With --every it goes on, and Prometheus may ask it.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import signal
import sys
import time
from pathlib import Path

from prometheus_client import start_http_server

from monitoring.drift import report
from monitoring.drift.drift_tests import LATEST, NEEDED, Findings, check
from monitoring.drift.prometheus_gauges import Gauges
from monitoring.drift.service_client import ReplicasError, ask
from serve.models.drift_reference import Reference, features

logger = logging.getLogger("monitoring.drift")

_HOUR = 3600 * 10**9  # nanoseconds
NO_DRIFT, FAILED, DRIFT = 0, 1, 3  # 2 is argparse's


def main(arguments: list[str] | None = None) -> int:
    """One check, or one after another; the exit status."""
    chosen = parsed(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # which a first process ignores
    # Those of the service: its first is used.
    key = os.environ.get("API_KEYS", "").split(",")[0].strip()
    urls = chosen.url or ["http://127.0.0.1:8000"]
    if not chosen.every:
        findings = _once(urls, key, chosen, None)
        return FAILED if findings is None else DRIFT if findings.drifted else NO_DRIFT
    gauges = Gauges()
    start_http_server(chosen.port, chosen.address, registry=gauges.registry)
    while True:
        try:
            _once(urls, key, chosen, gauges)
        except Exception:  # one that nobody thought of, or a full disk, must not end the checks
            logger.exception("the check did not end")
        time.sleep(chosen.every)


def _once(
    urls: list[str], key: str, chosen: argparse.Namespace, gauges: Gauges | None
) -> Findings | None:
    """A check, shown and with its report; nothing if no replica could be asked."""
    try:
        asked = ask(urls, key, LATEST, since=time.time_ns() - int(chosen.hours * _HOUR))
    except ReplicasError as error:
        logger.error("nothing to compare: %s", error)
        return None
    answers = asked.answers
    window = Reference(answers.probabilities, features(answers.images))
    findings = check(window, asked.reference)
    if gauges:
        gauges.show(findings)
    report.write(chosen.out, asked, window, findings)
    _say(asked.version, findings, chosen.out)
    return findings


def _say(version: str, findings: Findings, out: Path) -> None:
    seen = f"version {version}, {findings.images:,} images"
    if findings.drifted:
        logger.warning("drift: %s: %s: %s", seen, ", ".join(findings.drifted), out / "index.html")
    elif findings.enough:
        logger.info("no drift: %s", seen)
    else:
        logger.info("too few to tell: %s of the %d that are needed", seen, NEEDED)


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m monitoring.drift",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--url",
        action="append",
        help="a service, may be repeated; each address of the name is asked"
        " (http://127.0.0.1:8000); its key is the first of API_KEYS in the environment",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("build/drift"), help="folder for the report (build/drift)"
    )
    parser.add_argument(
        "--hours", type=_positive, default=24, help="no answers that are older (24)"
    )
    parser.add_argument("--every", type=_positive, help="seconds from one check to the next")
    parser.add_argument(
        "--address", default="127.0.0.1", help="to listen on, with --every (127.0.0.1)"
    )
    parser.add_argument("--port", type=int, default=9108, help="of /metrics, with --every (9108)")
    return parser.parse_args(arguments)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError("must be more than 0")
    return value


if __name__ == "__main__":
    sys.exit(main())
