"""A real Prometheus for tests, and the queries of Grafana's dashboards."""

import json
import re
import socket
import subprocess
import time

import httpx2
import yaml

from support.service_process import until

# Values of Grafana's built-in variables; `$__range` is the dashboard's time range.
RATE, SHOWN = "10s", "60s"
_BUILT_IN = {"__rate_interval": RATE, "__range": SHOWN, "__interval": "1s"}


class Prometheus:
    """A Prometheus process that scrapes every second; `jobs`: addresses by job.

    `rules`: a glob pattern; `alertmanager`: its address.
    """

    def __init__(self, folder, jobs, rules, alertmanager):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        file = folder / "prometheus.yml"
        jobs = {**jobs, "prometheus": [f"127.0.0.1:{self.port}"], "alertmanager": [alertmanager]}
        scraped = [
            {"job_name": job, "static_configs": [{"targets": targets}]}
            for job, targets in jobs.items()
        ]
        # The interval is also the timeout of a scrape, so the slow exporter has a longer one.
        for scrape in scraped:
            scrape["scrape_interval"] = "4s" if scrape["job_name"] == "pipeline" else "1s"
        known = {
            "global": {"evaluation_interval": "1s"},
            "rule_files": [str(rules)],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
            "scrape_configs": scraped,
        }
        file.write_text(yaml.safe_dump(known))
        self.at = time.time()  # the time of queries
        self.log = folder / "prometheus.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={file}",
                    f"--storage.tsdb.path={folder / 'tsdb'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                ],
                stdout=log,
                stderr=log,
            )
        self.api = httpx2.Client(base_url=f"http://127.0.0.1:{self.port}/api/v1", trust_env=False)

    def await_targets(self):
        """Wait until all targets have been scraped."""
        until(self._reaches_all, self)

    def _reaches_all(self):
        try:
            answer = self.api.get("/targets")
        except httpx2.TransportError:
            return False
        found = answer.json()["data"]["activeTargets"] if answer.status_code == 200 else []
        return bool(found) and all(target["health"] == "up" for target in found)

    def output(self):
        return self.log.read_text(errors="replace")

    def ask(self, path, **parameters):
        """Return the data of a response."""
        answer = self.api.post(path, data=parameters).json()
        assert answer["status"] == "success", (parameters, answer)
        return answer["data"]

    def over_time(self, expr, seconds=60, step=1):
        """Return the series of a range query that ends at `at`."""
        end = self.at
        return self.ask("/query_range", query=expr, start=end - seconds, end=end, step=step)[
            "result"
        ]

    def now(self, expr):
        """Return the series of an instant query at `at`."""
        return self.ask("/query", query=expr, time=self.at)["result"]

    def stop(self):
        self.api.close()
        self.process.terminate()
        self.process.wait(30)


def interpolated(text, **variables):
    """Replace variables as Grafana does; those not given are "All"."""
    values = {**_BUILT_IN, "replica": ".*", "model_version": ".*", **variables}
    return re.sub(r"\$\{?(\w+)\}?", lambda found: values[found[1]], text)


def panels(board):
    """Return the panels that are not rows."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries(board):
    """Yield each panel with each of its targets."""
    for panel in panels(board):
        for target in panel["targets"]:
            yield panel, target


def boards(folder):
    return {file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}
