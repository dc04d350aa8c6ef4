"""A real Prometheus for tests, and the queries of Grafana's dashboards."""

import json
import re
import time

import httpx2
import yaml

from support.alerting import Program, free_port
from support.service_process import until

# Values of Grafana's built-in variables; `$__range` is the dashboard's time range.
RATE, SHOWN = "10s", "60s"
_BUILT_IN = {"__rate_interval": RATE, "__range": SHOWN, "__interval": "1s"}


class Prometheus(Program):
    """A Prometheus process that scrapes every second; `jobs`: addresses by job.

    `rules`: a glob pattern; `alertmanager`: its address; `probed`: what the job `probe` asks for.
    """

    def __init__(self, folder, jobs, rules, alertmanager, probed):
        port, file = free_port(), folder / "prometheus.yml"
        jobs = {**jobs, "prometheus": [f"127.0.0.1:{port}"], "alertmanager": [alertmanager]}
        # The interval is also the timeout of a scrape, so the slow exporter has a longer one.
        scraped = [
            {
                "job_name": job,
                "static_configs": [{"targets": targets}],
                "scrape_interval": "4s" if job == "pipeline" else "1s",
            }
            for job, targets in jobs.items()
        ]
        probe = next(each for each in scraped if each["job_name"] == "probe")
        probe |= {"metrics_path": "/probe", "params": {"target": [probed]}}
        known = {
            "global": {"evaluation_interval": "1s"},
            "rule_files": [str(rules)],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
            "scrape_configs": scraped,
        }
        file.write_text(yaml.safe_dump(known))
        self.at = time.time()  # the time of queries
        options = f"--config.file={file}", f"--storage.tsdb.path={folder / 'tsdb'}"
        super().__init__(folder, "prometheus", *options, port=port)

    def await_targets(self):
        """Wait until all targets have been scraped."""
        until(self._reaches_all, self)

    def _reaches_all(self):
        found = self.get("/api/v1/targets").json()["data"]["activeTargets"]
        return bool(found) and all(target["health"] == "up" for target in found)

    def ask(self, path, **parameters):
        """Return the data of a response."""
        url = f"{self.url}/api/v1{path}"
        answer = httpx2.post(url, data=parameters, trust_env=False, timeout=60).json()
        assert answer["status"] == "success", (parameters, answer)
        return answer["data"]

    def over_time(self, expr, seconds=60, step=1):
        """Return the series of a range query that ends at `at`."""
        start = self.at - seconds
        return self.ask("/query_range", query=expr, start=start, end=self.at, step=step)["result"]

    def now(self, expr):
        """Return the series of an instant query at `at`."""
        return self.ask("/query", query=expr, time=self.at)["result"]


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
