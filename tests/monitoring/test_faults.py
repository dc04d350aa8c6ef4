"""Five faults of a real service, and the alerts that real Prometheus and Alertmanager send.

All durations are divided by 60: an alert that waits five minutes waits five seconds. With
RECORD=--record the results go to docs/tables/faults.json and docs/MONITORING.md (`make tables`).
"""

import io
import os
import re
import signal
import time

import numpy as np
import pytest
from PIL import Image
from support.alerting import ALERTS, Load, Watch, corrupt_copy, free_port, within
from support.mlflow_registry import Registry
from support.monitored_stack import Job
from support.service_process import ROOT, Process, until

from docs.tools import recorded, tables
from pipeline.config import paths

CLOCK = "1/60"
PATIENCE = 400  # seconds until an alert comes or goes; a fault takes 10 to 50 on a quiet machine
PNG = {"content-type": "image/png"}
COLUMNS = ["fault", "told", "held back", "all there after", "gone after"]


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


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
        self.files = [png(image) for image in self.images]
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
        """Tells that the answer was right, or by how much it was wrong."""
        answer = response.json()
        label = (answer["prediction"] + wrong) % 10
        given = {"request_id": answer["request_id"], "label": label}
        return api.post("/feedback", json=given)

    def usual(self, api, number):
        response = self.predicted(api, number)
        if number % 10 or response.status_code != 200:
            return [response]
        return [response, self.feedback(api, response)]

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


class Killed:
    """The service and its workers, with SIGKILL."""

    name = "service and workers killed"
    told = ("ServiceDown",)
    held_back = ("ReplicaDown",)

    def begin(self, world):
        children = world.service.children()
        for pid in (world.service.process.pid, *children):
            os.kill(pid, signal.SIGKILL)
        world.service.process.wait()

    def end(self, world):
        world.start()


class Slow:
    """A network that holds up each picture for half a second, after the head of its request."""

    name = "uploads of four clients held up for half a second"
    told = ("LatencyHigh",)
    held_back = ()

    def begin(self, world):
        def send(api, number):
            file = world.files[number % len(world.files)]

            def late():
                time.sleep(0.5)
                yield file

            headers = {**PNG, "content-length": str(len(file))}
            return [api.post("/predict", content=late(), headers=headers)]

        self.load = Load(world.service.url, send, clients=4)
        self.load.__enter__()

    def end(self, world):
        self.load.__exit__()
        assert set(self.load.statuses) == {("/predict", 200)}


class Corrupted:
    """A version of the registry with a bit turned gets the alias."""

    name = "a spoilt version promoted"
    told = ("ModelReloadFailed",)
    held_back = ("ModelDegraded",)

    def begin(self, world):
        world.registry.promote(world.bad)

    def end(self, world):
        world.registry.promote(world.good)


class Inverted:
    """A client inverts the digit's 20x20 box and not the margin of four pixels around it.

    An image that is inverted as a whole is no fault: the service sees that and turns it back.
    """

    name = "digits inverted within their margin"
    told = ("LowConfidence", "NotADigit", "ClassMixShifted", "DriftDetected")
    held_back = ()

    def begin(self, world):
        wrong = world.images.copy()
        wrong[:, 4:-4, 4:-4] = 255 - wrong[:, 4:-4, 4:-4]

        def send(api, number):
            data = wrong[number % len(wrong)].reshape(1, -1)
            tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 784]}
            tensor["data"] = data.tolist()
            body = {"inputs": [tensor]}
            return [api.post("/v2/models/mnist-classifier/infer", json=body)]

        world.load.send = send

    def end(self, world):
        world.load.send = world.usual


class Mislabelled:
    """Whoever gives feedback says another digit."""

    name = "half of the feedback wrong"
    told = ("FeedbackAccuracyLow",)
    held_back = ()

    def begin(self, world):
        def send(api, number):
            response = world.predicted(api, number)
            return [response, world.feedback(api, response, wrong=number % 2)]

        world.load.send = send

    def end(self, world):
        def send(api, number):
            response = world.predicted(api, number)
            return [response, world.feedback(api, response)]

        world.load.send = send


FAULTS = (Killed, Slow, Corrupted, Inverted, Mislabelled)


def row(kind, *seconds):
    """A line of the table."""
    after = (f"{found:.0f} s" for found in seconds)
    return [kind.name, ", ".join(kind.told), ", ".join(kind.held_back), *after]


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
    assert [line[:3] for line in table.rows] == [row(kind) for kind in FAULTS]


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.system("prometheus", "prometheus")
@pytest.mark.system("prometheus-alertmanager", "prometheus-alertmanager")
@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_makes_its_alerts_and_no_others_and_they_end_with_it(world, rows, kind):
    fault, watch = kind(), world.watch
    means = {*fault.told}
    expected = means | {*fault.held_back}
    until(lambda: watch.value('sum(rate(predictions_total{job="digits"}[1m]))'))
    within(lambda: not watch.firing(), PATIENCE, watch.firing)
    # An alert that fires again before its end was sent would be sent with the next repetition only.
    within(lambda: not watch.webhook.pending(), PATIENCE, watch.webhook.pending)
    began = time.time()

    def sent(status):
        return watch.webhook.alerts(status, since=began)

    def seen():
        log = world.service.output()[-2000:]
        return f"firing {watch.firing()}, told {sent('firing')}, over {sent('resolved')}, {log}"

    fault.begin(world)
    try:
        within(lambda: means <= sent("firing"), PATIENCE, seen)
        within(lambda: watch.firing() == expected, PATIENCE, seen)
    finally:
        came = time.time() - began
        fault.end(world)
    within(lambda: means <= sent("resolved"), PATIENCE, seen)
    within(lambda: not watch.firing(), PATIENCE, seen)
    lasted = time.time() - began
    rows.append(row(kind, came, lasted))
    print(rows[-1])
    assert watch.firing(lasted) == expected
    assert sent("firing") == means
    # The end of an inhibited alert may be sent, if the inhibiting alert ends at the same time.
    assert means <= sent("resolved") <= expected
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
