"""Prometheus and Alertmanager with the repository's files, a webhook for alerts, and load."""

import json
import re
import shutil
import socket
import subprocess
import threading
import time
from collections import Counter
from contextlib import ExitStack
from datetime import datetime
from fractions import Fraction
from pathlib import Path

import httpx2
import yaml

from support import time_scale as scale
from support.service_process import ROOT, until
from support.web_server import Handler, serving

RULES = {
    path.stem: yaml.safe_load(path.read_text())["groups"]
    for path in sorted((ROOT / "monitoring/prometheus/rules").glob("*.yml"))
}
ALERTS = {
    rule["alert"]: rule
    for groups in RULES.values()
    for group in groups
    for rule in group["rules"]
    if "alert" in rule
}
WATCHDOG = "Watchdog"  # always fires, with a receiver of its own
FIRING = f'ALERTS{{alertstate="firing",alertname!="{WATCHDOG}"}}'
# PromQL's keywords.
_WORDS = {"and", "or", "unless", "on", "by", "sum", "offset", "ignoring", "bool", "without"}


def expressions():
    """Yield every PromQL expression of the rules, the alerts' texts and the dashboards."""
    for groups in RULES.values():
        for group in groups:
            for rule in group["rules"]:
                yield rule["expr"]
                for text in rule.get("annotations", {}).values():
                    yield from re.findall(r'query "([^"]+)"', text)
    for file in (ROOT / "monitoring/grafana/dashboards").glob("*.json"):
        yield from re.findall(r'"expr": "((?:[^"\\]|\\.)*)"', file.read_text())


def names(expression):
    """Return the names of the series in a PromQL expression."""
    expression = re.sub(r'"(?:[^"\\]|\\.)*"', "", expression)
    expression = re.sub(r"{[^{}]*}|\[[^\]]*\]|#.*", " ", expression)
    expression = re.sub(
        r"\b(on|by|ignoring|without|group_left|group_right)\s*\([^)]*\)", " ", expression
    )
    words = re.findall(r"(?<![\w.])([a-zA-Z_:][\w:]*)\b(?!\s*\()", expression)
    return set(words) - _WORDS


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


class Webhook:
    """A webhook that keeps every message of Alertmanager: those to `on-call` and to `watchdog`."""

    def __init__(self):
        self.messages, self.heartbeats = [], []
        kept = {"on-call": self.messages, "watchdog": self.heartbeats}

        class Messages(Handler):
            def respond(self):
                message = json.loads(self.body())
                kept[message["receiver"]].append(message)
                self.answer(200)

        self._running = ExitStack()
        self.url = f"{self._running.enter_context(serving(Messages)).url}/"

    def alerts(self, status, since):
        """Return the names of alerts with this status that began after `since`.

        Prometheus repeats for 15 minutes that an alert is resolved, so older ones are left out.
        """
        return {
            alert["labels"]["alertname"]
            for message in self.messages
            for alert in message["alerts"]
            if alert["status"] == status
            and datetime.fromisoformat(alert["startsAt"]).timestamp() >= since
        }

    def pending(self):
        """Return the names of the alerts whose last message said that they fire."""
        last = {
            alert["fingerprint"]: alert for message in self.messages for alert in message["alerts"]
        }
        return {a["labels"]["alertname"] for a in last.values() if a["status"] == "firing"}

    def close(self):
        self._running.close()


class Program:
    """Prometheus, Alertmanager or blackbox exporter as a process on a free port."""

    def __init__(self, folder, *command, port=None, ready="/-/ready"):
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / f"{command[0]}.log"
        self._ready = ready
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, f"--web.listen-address=127.0.0.1:{self.port}"], stdout=log, stderr=log
            )
        until(self._answers, self)

    def _answers(self):
        try:
            return self.get(self._ready).status_code == 200
        except httpx2.TransportError:
            return False

    def output(self):
        return self.log.read_text(errors="replace")

    def get(self, path, **parameters):
        return httpx2.get(f"{self.url}{path}", params=parameters, trust_env=False, timeout=60)

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


def alertmanager(folder, webhook_url, factor="1"):
    """Start Alertmanager with the repository's file and this address.

    Debian's 0.25 does not know `url_file`.
    """
    scale.main(Fraction(factor), folder)
    file = folder / "alertmanager/alertmanager.yml"
    content = yaml.safe_load(file.read_text())
    for receiver in content["receivers"]:
        for hook in receiver["webhook_configs"]:
            del hook["url_file"]
            hook["url"] = webhook_url
    file.write_text(yaml.safe_dump(content))
    return Program(
        folder,
        "prometheus-alertmanager",
        f"--config.file={file}",
        f"--storage.path={folder / 'alerts'}",
        "--cluster.listen-address=",
    )


def blackbox(folder):
    """Start blackbox exporter with the repository's file."""
    file = ROOT / "monitoring/blackbox/blackbox.yml"
    command = "prometheus-blackbox-exporter", f"--config.file={file}"
    return Program(folder, *command, ready="/-/healthy")


class Watch:
    """Prometheus and Alertmanager with the repository's files, with all durations scaled.

    `targets`: port by job; jobs without an entry are not scraped.
    """

    def __init__(self, folder, targets, factor):
        self.webhook = Webhook()
        self.alertmanager = alertmanager(folder, self.webhook.url, factor)
        file = folder / "prometheus/prometheus.yml"
        content = yaml.safe_load(file.read_text())
        content["alerting"]["alertmanagers"] = [{"static_configs": [_at(self.alertmanager.port)]}]
        known = {"alertmanager": self.alertmanager.port, **targets}
        content["scrape_configs"] = [
            {"job_name": job["job_name"], "static_configs": [_at(known[job["job_name"]])]}
            for job in content["scrape_configs"]
            if job["job_name"] in known
        ]
        file.write_text(yaml.safe_dump(content))
        self.prometheus = Program(
            folder,
            "prometheus",
            f"--config.file={file}",
            f"--storage.tsdb.path={folder / 'series'}",
            # A minute, scaled.
            f"--rules.alert.resend-delay={scale.duration('1m', Fraction(factor))}",
        )

    def value(self, query):
        """Return the one value of the query, or None."""
        found = self.query(query)
        assert len(found) < 2, found
        return float(found[0]["value"][1]) if found else None

    def query(self, query):
        answer = self.prometheus.get("/api/v1/query", query=query).json()
        assert answer["status"] == "success", answer
        return answer["data"]["result"]

    def firing(self, seconds=None):
        """Return the names of the alerts that fire now, or did within the last seconds.

        Without the Watchdog.
        """
        series = f"max_over_time({FIRING}[{round(seconds * 1000)}ms])" if seconds else FIRING
        return {found["metric"]["alertname"] for found in self.query(series)}

    def close(self):
        self.prometheus.stop()
        self.alertmanager.stop()
        self.webhook.close()


def _at(port):
    return {"targets": [f"127.0.0.1:{port}"]}


class Load:
    """Clients that call `send(client, number)` in a loop; `send` may be replaced meanwhile."""

    def __init__(self, url, send, clients=2, pause=0.02):
        self.send = send
        self.statuses = Counter()  # responses by (path, status)
        self.broken = 0  # requests without a response
        self._url, self._pause = url, pause
        self._lock, self._done = threading.Lock(), threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(place, clients)) for place in range(clients)
        ]

    def _ask(self, number, step):
        while not self._done.is_set():
            with httpx2.Client(base_url=self._url, timeout=30, trust_env=False) as api:
                try:
                    for _ in range(25):  # then a new connection, perhaps to another worker
                        if self._done.is_set():
                            return
                        self._count(self.send(api, number))
                        number += step
                        self._done.wait(self._pause)
                except httpx2.TransportError:
                    with self._lock:
                        self.broken += 1
                    self._done.wait(0.05)

    def _count(self, responses):
        with self._lock:
            for response in responses:
                path = response.request.url.path
                self.statuses[path, response.status_code] += 1

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error):
        self._done.set()
        for thread in self._threads:
            thread.join()


def counters(text):
    """Parse an exposition into {name: {labels as written: value}}."""
    found = {}
    for name, labels, value in re.findall(r"^([a-z_:]+)(?:{(.*)})? (\S+)$", text, re.MULTILINE):
        found.setdefault(name, {})[labels] = float(value)
    return found


def corrupt_copy(bundle, folder):
    """Copy the bundle and flip one bit of its model."""
    shutil.copytree(bundle, folder)
    file = Path(folder) / "model.tflite"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    return folder


def within(condition, seconds, describe):
    """Wait for the condition; fail with what `describe` returns."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, describe()
        time.sleep(0.1)
