"""Five faults of a real service, and the alerts that real Prometheus and Alertmanager send.

All durations are divided by 60: an alert that waits five minutes waits five seconds. With
RECORD=--record the results go to docs/tables/faults.json and docs/MONITORING.md (`make tables`).
"""

import os
import re
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
from support.alerting import ALERTS, Load, Watch, corrupt_copy, free_port, within
from support.mlflow_registry import Registry
from support.monitored_stack import Job
from support.service_process import ROOT, Process, until

from bench.variants import file
from docs.tools import recorded, tables
from pipeline.config import paths

CLOCK = "1/60"
PATIENCE = 400  # seconds until an alert comes or goes; a fault takes 10 to 50 on a quiet machine
PNG = {"content-type": "image/png"}
COLUMNS = ["fault", "alerts", "inhibited", "all sent after", "resolved after"]


class World:
    """The service under load, its registry, and who watches it."""

    def __init__(self, folder):
        self.folder = folder
        bundle = ROOT / paths.CHAMPION
        if not bundle.exists():
            pytest.fail("needs models/champion: make repro")
        with np.load(ROOT / paths.processed("mnist")) as data:
            # In no order: digits that stand together were written by the same people, and a window
            # of those is drift.
            self.images = np.random.default_rng(42).permutation(data["test_images"])
        self.images = self.images.reshape(-1, 28, 28)
        self.files = [file(image, compress_level=1) for image in self.images]
        self.registry = Registry(f"sqlite:///{folder}/mlflow.db", (folder / "artifacts").as_uri())
        self.good = self.registry.register(bundle)
        self.bad = self.registry.register(corrupt_copy(bundle, folder / "corrupt"))
        self.registry.promote(self.good)
        self.port = free_port()
        self.start()
        # Each five minutes, and of a day, on this clock.
        checks = "--every", "5", "--hours", "0.4", "--out", str(folder / "drift")
        self.drift = Job(folder, "drift", *checks, "--url", self.service.url)
        # A check draws its report for a second of processor time, which no clock makes shorter, and
        # a scrape waits a quarter of one.
        os.setpriority(os.PRIO_PROCESS, self.drift.process.pid, 10)
        self.watch = Watch(folder, {"digits": self.port, "drift": self.drift.port}, CLOCK)
        self.load = Load(self.service.url, self.usual)

    def start(self):
        self.service = Process(
            self.folder,
            API_PORT=self.port,
            API_WORKERS=1,
            MLFLOW_TRACKING_URI=self.registry.uri,
            MODEL_POLL_SECONDS=0.5,
        )
        self.service.ready()

    def predicted(self, api, number):
        file = self.files[number % len(self.files)]
        return api.post("/predict", content=file, headers=PNG)

    def feedback(self, api, response, wrong=0):
        """Say that the answer was right, or by how much it was wrong."""
        answer = response.json()
        label = (answer["prediction"] + wrong) % 10
        given = {"request_id": answer["request_id"], "label": label}
        return api.post("/feedback", json=given)

    def usual(self, api, number):
        response = self.predicted(api, number)
        if number % 10 or response.status_code != 200:
            return [response]
        return [response, self.feedback(api, response)]

    def sends(self, send, afterwards):
        self.load.send = send
        return lambda: setattr(self.load, "send", afterwards)

    def close(self):
        self.watch.close()
        self.drift.stop()
        self.service.stop(signal.SIGKILL)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv("MLFLOW_TRACKING_URI", raising=False)
        world = World(tmp_path_factory.mktemp("world"))
        with world.load:
            yield world
        world.close()


# Each fault is a function that begins it and returns one that ends it.


def killed(world):
    """SIGKILL for the service and its workers."""
    for pid in (world.service.process.pid, *world.service.children()):
        os.kill(pid, signal.SIGKILL)
    world.service.process.wait()
    return world.start


def slow(world):
    """A network that delays each picture for half a second, after the head of its request."""

    def send(api, number):
        content = world.files[number % len(world.files)]

        def late():
            time.sleep(0.5)
            yield content

        headers = {**PNG, "content-length": str(len(content))}
        return [api.post("/predict", content=late(), headers=headers)]

    load = Load(world.service.url, send, clients=4)
    load.__enter__()

    def end():
        load.__exit__()
        assert set(load.statuses) == {("/predict", 200)}

    return end


def corrupted(world):
    """A version of the registry with one bit flipped gets the alias."""
    world.registry.promote(world.bad)
    return lambda: world.registry.promote(world.good)


def inverted(world):
    """A client inverts the digit's 20x20 box and not the margin of four pixels around it.

    An image that is inverted as a whole is no fault: the service sees that and turns it back.
    """
    wrong = world.images.copy()
    wrong[:, 4:-4, 4:-4] = 255 - wrong[:, 4:-4, 4:-4]

    def send(api, number):
        tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 784]}
        tensor["data"] = wrong[number % len(wrong)].reshape(1, -1).tolist()
        return [api.post("/v2/models/mnist-classifier/infer", json={"inputs": [tensor]})]

    return world.sends(send, afterwards=world.usual)


def mislabelled(world):
    """Half of the feedback names another digit; afterwards all of it is right."""

    def send(api, number, by=2):
        response = world.predicted(api, number)
        return [response, world.feedback(api, response, wrong=number % by)]

    return world.sends(send, afterwards=partial(send, by=1))


class Fault(NamedTuple):
    """A fault by its name in the table, with the alerts that are sent and those inhibited."""

    name: str
    begin: Callable
    sent: tuple[str, ...]
    inhibited: tuple[str, ...] = ()

    def row(self, *seconds):
        """A line of the table."""
        alerts = ", ".join(self.sent), ", ".join(self.inhibited)
        return [self.name, *alerts, *(f"{found:.0f} s" for found in seconds)]


DRIFT = ("LowConfidence", "NotADigit", "ClassMixShifted", "DriftDetected")
FAULTS = (
    Fault("service and workers killed", killed, ("ServiceDown",), ("ReplicaDown",)),
    Fault("uploads of four clients delayed by half a second", slow, ("LatencyHigh",)),
    Fault("a corrupt version promoted", corrupted, ("ModelReloadFailed",), ("ModelDegraded",)),
    Fault("digits inverted within their margin", inverted, DRIFT),
    Fault("half of the feedback wrong", mislabelled, ("FeedbackAccuracyLow",)),
)


@pytest.fixture(scope="module")
def rows():
    """What was found, in the end for the docs."""
    found = []
    yield found
    if os.environ.get("RECORD") and len(found) == len(FAULTS):
        command = "RECORD=--record python -m pytest tests/monitoring/test_faults.py"
        tables.write("faults", tables.Table(command, recorded.machine(), COLUMNS, found))


def test_the_table_has_these_faults_and_alerts():
    table = tables.read("faults")
    assert table.columns == COLUMNS
    assert [line[:3] for line in table.rows] == [fault.row() for fault in FAULTS]


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.system("prometheus", "prometheus")
@pytest.mark.system("prometheus-alertmanager", "prometheus-alertmanager")
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(
            each, id=each.begin.__name__, marks=() if each.inhibited else pytest.mark.nightly
        )
        for each in FAULTS
    ],
)
def test_a_fault_makes_its_alerts_and_no_others_and_they_end_with_it(world, rows, fault):
    watch = world.watch
    expected = {*fault.sent, *fault.inhibited}
    until(lambda: watch.value('sum(rate(predictions_total{job="digits"}[1m]))'))
    within(lambda: not watch.firing(), PATIENCE, watch.firing)
    # An alert that fires again before its end was sent would be sent with the next repetition only.
    within(lambda: not watch.webhook.pending(), PATIENCE, watch.webhook.pending)
    began = time.time()

    def sent(status):
        return watch.webhook.alerts(status, since=began)

    def seen():
        log = world.service.output()[-2000:]
        return f"firing {watch.firing()}, {sent('firing')}, resolved {sent('resolved')}, {log}"

    end = fault.begin(world)
    try:
        within(lambda: {*fault.sent} <= sent("firing"), PATIENCE, seen)
        within(lambda: watch.firing() == expected, PATIENCE, seen)
    finally:
        came = time.time() - began
        end()
    within(lambda: {*fault.sent} <= sent("resolved"), PATIENCE, seen)
    within(lambda: not watch.firing(), PATIENCE, seen)
    lasted = time.time() - began
    rows.append(fault.row(came, lasted))
    print(rows[-1])
    assert watch.firing(lasted) == expected
    assert sent("firing") == {*fault.sent}
    # The end of an inhibited alert may be sent, if the inhibiting alert ends at the same time.
    assert {*fault.sent} <= sent("resolved") <= expected
    for message in watch.webhook.messages:
        check(message)


def check(message):
    """What the one who is woken reads."""
    assert message["receiver"] == "on-call"
    for alert in message["alerts"]:
        rule = ALERTS[alert["labels"]["alertname"]]
        assert alert["labels"]["severity"] == rule["labels"]["severity"]
        assert message["groupLabels"] == {"concerns": rule["labels"]["concerns"]}
        assert alert["annotations"]["summary"] == rule["annotations"]["summary"]
        description = alert["annotations"]["description"]
        assert any(letter.isdigit() for letter in description)
        assert not re.search(r"\{\{|<no value>|<error", description)
        assert alert["annotations"]["runbook_url"] == rule["annotations"]["runbook_url"]
