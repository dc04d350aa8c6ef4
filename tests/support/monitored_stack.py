"""The whole monitored platform: two replicas, a registry, the exporters, Prometheus, Alertmanager.

Prometheus has the repository's rules with all durations divided by 60. Alertmanager cannot deliver
its notifications.
"""

import os
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from urllib.parse import urlsplit

import httpx2
import numpy as np

from support.alerting import FIRING, alertmanager, blackbox, corrupt_copy, free_port
from support.bundles import PNG
from support.mlflow_registry import Registry
from support.prometheus import Prometheus
from support.service_process import ROOT, Process, until

ENOUGH = 200  # pictures; the drift job needs 100 of a version
GATES = {
    "gate.test_accuracy": "passed: test accuracy 0.9934, at least 0.99 wanted",
    "gate.recall": "passed: lowest recall 0.9885 (digit 6), at least 0.97 wanted",
    "gate.latency_ms_p99": "passed: p99 latency of one image 0.07 ms, below 100 wanted",
    "gate.bundle_bytes": "passed: bundle 2.12 MB, below 10 wanted",
}


class Job:
    """A module of `monitoring` that runs as a process and is scraped by Prometheus."""

    def __init__(self, folder, module, *options, **environment):
        self.port = port = free_port()
        self.address = f"127.0.0.1:{port}"
        self._log = folder / f"{module}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"monitoring.{module}", "--port", str(port), *options],
                cwd=ROOT,
                env={**os.environ, "PYTHONWARNINGS": "", **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        until(self._answers, self)

    def _answers(self):
        try:
            return httpx2.get(f"http://{self.address}/metrics", trust_env=False).is_success
        except httpx2.TransportError:
            return False

    def output(self):
        return self._log.read_text(errors="replace")

    def stop(self):
        self.process.terminate()
        return self.process.wait(30)


class Scene:
    """Context manager; `first` and `second` are the bundles of versions 1 and 2."""

    def __init__(self, folder, first, second):
        self._folder, self._bundles = folder, (first, second)
        self._chance = np.random.default_rng(42)

    def __enter__(self):
        with ExitStack() as begun:
            self._begin(begun, self._folder)
            self._begun = begun.pop_all()
        return self

    def __exit__(self, *error):
        self._begun.close()

    def _begin(self, begun, folder):
        uri = f"sqlite:///{folder / 'registry.db'}"
        self._registry = Registry(uri, (folder / "artifacts").as_uri())
        self._versions = [
            self._registry.register(self._bundles[0], test_accuracy="0.9868"),
            self._registry.register(
                self._bundles[1], test_accuracy="0.9934", feedback_accuracy="0.893", **GATES
            ),
        ]
        self._bad = self._registry.register(corrupt_copy(self._bundles[1], folder / "corrupt"))
        self._registry.promote(self._versions[0])
        self._replicas = [_replica(folder / name, uri) for name in ("one", "two")]
        for replica in self._replicas:
            begun.callback(replica.stop)
        reports = folder / "reports"
        reports.mkdir()
        shutil.copy2(ROOT / "reports" / "comparison.json", reports)
        options = "--reports", str(reports)
        exporter = Job(folder, "pipeline_exporter", *options, MLFLOW_TRACKING_URI=uri)
        begun.callback(exporter.stop)
        for replica in self._replicas:
            replica.ready()
        asked = [word for replica in self._replicas for word in ("--url", replica.url)]
        drift = Job(folder, "drift", "--every", "1", "--out", str(folder / "drift"), *asked)
        begun.callback(drift.stop)
        probe = blackbox(folder)
        begun.callback(probe.stop)
        # This also writes the scaled rules. Nobody listens at the port.
        receiver = alertmanager(folder, "http://127.0.0.1:9/", "1/60")
        begun.callback(receiver.stop)
        self.prometheus = Prometheus(
            folder,
            {
                "digits": [urlsplit(replica.url).netloc for replica in self._replicas],
                "drift": [drift.address],
                "pipeline": [exporter.address],
                "probe": [f"127.0.0.1:{probe.port}"],
            },
            folder / "prometheus/rules/*.yml",
            f"127.0.0.1:{receiver.port}",
            f"{self._replicas[0].url}/health/ready",
        )
        begun.callback(self.prometheus.stop)
        self.prometheus.await_targets()

    def play(self, seconds, pictures, labels):
        """Send traffic; promote the second version halfway, and a corrupt one at the end.

        The corrupt one makes an alert fire.
        """
        clients = [replica.client() for replica in self._replicas]
        self._send(clients, seconds / 2, 0, pictures, labels)
        self._registry.promote(self._versions[1])
        for api in clients:  # the answers of a version count for its drift
            until(lambda api=api: api.get("/health").json()["model_version"] == self._versions[1])
        self._send(clients, seconds / 2, ENOUGH, pictures, labels)
        assert any(_limited(clients[0]) for _ in range(3000))  # one caller asks without pause
        self._registry.promote(self._bad)
        until(lambda: self._shows(FIRING) and self._shows("drift_psi"))
        self._registry.promote(self._versions[1])
        promoted = time.time()
        until(lambda: self._shows(f"min(timestamp(up)) > {promoted}"), self.prometheus)
        self.prometheus.at = time.time()  # asked later, a rate would be of less and less
        for api in clients:
            api.close()

    def _send(self, clients, seconds, least, pictures, labels):
        """Send pictures for as long, and at least as many, however slow the machine is."""
        until_when, sent = time.monotonic() + seconds, 0
        while time.monotonic() < until_when or sent < least:
            for api in clients:
                for _ in range(self._chance.poisson(6)):
                    place = int(self._chance.integers(len(pictures)))
                    self._one(api, pictures[place], int(labels[place]))
                    sent += 1
                if self._chance.random() < 0.1:
                    api.post("/predict", content=b"no picture", headers=PNG)
                if self._chance.random() < 0.05:
                    api.get("/nowhere")
            time.sleep(float(self._chance.uniform(0.1, 0.3)))

    def _shows(self, expr):
        self.prometheus.at = time.time()
        return bool(self.prometheus.now(expr))

    def _one(self, api, picture, label):
        answer = api.post("/predict", content=picture, headers=PNG)
        if answer.status_code != 200:
            return
        found = answer.json()
        if self._chance.random() < 0.2:
            given = {"request_id": found["request_id"], "label": label}
            assert api.post("/feedback", json=given).status_code in (200, 429)


def _replica(folder, uri):
    folder.mkdir()
    return Process(
        folder,
        MLFLOW_TRACKING_URI=uri,
        MODEL_POLL_SECONDS="0.2",
        API_WORKERS="1",
        RATE_LIMIT="50/second",
    )


def _limited(api):
    """Send a request; return whether it hit the rate limit."""
    return api.post("/predict", content=b"-", headers=PNG).status_code == 429
