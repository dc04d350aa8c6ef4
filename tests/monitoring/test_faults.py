"""Five faults of a real service, and what a real Prometheus and Alertmanager make of them.

On a clock of 1/60: what waits five minutes waits five seconds.
"""

import io
import os
import signal
import time

import numpy as np
import pytest
from PIL import Image
from registering import Registry
from serving import ROOT, Process, until
from watching import ALERTS, Load, Watch, free_port, spoilt, within

from pipeline import paths

pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.system("prometheus", "prometheus"),
    pytest.mark.system("prometheus-alertmanager", "prometheus-alertmanager"),
]
CLOCK = "1/60"
PATIENCE = 120  # seconds until an alert comes or goes; a fault takes 10 to 50
PNG = {"content-type": "image/png"}


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
            self.images = data["test_images"][:2000].reshape(-1, 28, 28)
        self.files = [png(image) for image in self.images]
        self.registry = Registry(f"sqlite:///{folder}/mlflow.db", (folder / "artifacts").as_uri())
        self.good = self.registry.register(bundle)
        self.bad = self.registry.register(spoilt(bundle, folder / "spoilt"))
        self.registry.promote(self.good)
        self.port = free_port()
        self.start()
        self.watch = Watch(folder, {"digits": self.port}, CLOCK)
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

    told = frozenset({"ServiceDown"})
    held_back = frozenset({"ReplicaDown"})

    def begin(self, world):
        children = world.service.children()
        for pid in (world.service.process.pid, *children):
            os.kill(pid, signal.SIGKILL)
        world.service.process.wait()

    def end(self, world):
        world.start()


class Slow:
    """A network that holds up each picture for half a second, after the head of its request."""

    told = frozenset({"LatencyHigh"})
    held_back = frozenset()

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

    told = frozenset({"ModelReloadFailed"})
    held_back = frozenset({"ModelDegraded"})

    def begin(self, world):
        world.registry.promote(world.bad)

    def end(self, world):
        world.registry.promote(world.good)


class Inverted:
    """A client inverts the digit's 20x20 box and not the margin of four pixels around it.

    An image that is inverted as a whole is no fault: the service sees that and turns it back.
    """

    told = frozenset({"LowConfidence", "NotADigit", "ClassMixShifted"})
    held_back = frozenset()

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

    told = frozenset({"FeedbackAccuracyLow"})
    held_back = frozenset()

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


@pytest.mark.parametrize("kind", [Killed, Slow, Corrupted, Inverted, Mislabelled])
def test_a_fault_makes_its_alerts_and_no_others_and_they_end_with_it(world, kind):
    fault, watch = kind(), world.watch
    expected = fault.told | fault.held_back
    until(lambda: watch.value('sum(rate(predictions_total{job="digits"}[1m]))'))
    within(lambda: not watch.firing(), PATIENCE, watch.firing)
    # An alert that came back before its end was told would be told at the next repetition only.
    within(lambda: not watch.webhook.pending(), PATIENCE, watch.webhook.pending)
    began = time.time()

    def told(status):
        return watch.webhook.told(status, since=began)

    def seen():
        log = world.service.output()[-2000:]
        return f"firing {watch.firing()}, told {told('firing')}, over {told('resolved')}, {log}"

    fault.begin(world)
    try:
        within(lambda: fault.told <= told("firing"), PATIENCE, seen)
        within(lambda: watch.firing() == expected, PATIENCE, seen)
    finally:
        came = time.time() - began
        fault.end(world)
    within(lambda: fault.told <= told("resolved"), PATIENCE, seen)
    within(lambda: not watch.firing(), PATIENCE, seen)
    lasted = time.time() - began
    print(f"{kind.__name__}: all alerts after {came:.0f} s, none after {lasted:.0f} s")
    assert watch.firing(lasted) == expected
    assert told("firing") == fault.told
    # What was held back may be told as over, when what held it back is over at the same time.
    assert fault.told <= told("resolved") <= expected
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
        assert not {"{{", "<no value>", "error"} & set(description.split())
        assert alert["annotations"]["runbook_url"] == rule["annotations"]["runbook_url"]
