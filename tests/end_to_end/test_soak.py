"""Faults of all kinds, one after the other, while clients compare every answer.

A real service with two workers, MLflow's server, and Prometheus with the repository's rules, whose
durations are divided by 60. Each fault comes once, and again until SOAK_MINUTES are over: 30 in
`make soak`. With RECORD=--record its results go to docs/tables and docs/MEASUREMENTS.md (`make
tables`).
"""

import contextlib
import json
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from socket import create_connection
from typing import NamedTuple

import numpy as np
import psutil
import pytest
from support.alerting import Watch, corrupt_copy, free_port, within
from support.bundles import PNG
from support.checked_traffic import Known, Traffic
from support.connections import HANG, HEAD, connect, next_status, read, status, websocket
from support.hostile_inputs import MAY_BE_READ, corpus
from support.mlflow_registry import Registry, await_server, server
from support.service_process import ROOT, Process, until
from support.small_disk import SmallDisk
from websockets.exceptions import ConnectionClosed

from bench.variants import file
from docs.tools import recorded, tables
from pipeline.config import paths

MINUTES = float(os.environ.get("SOAK_MINUTES", "0"))
CLOCK = "1/60"
PATIENCE = 400  # seconds; against hanging only
MOST_MB = 374  # of a worker: docs/MEASUREMENTS.md
GROWTH_MB = 64  # what the allocator may keep beyond the warm-up: 27 to 38 were seen
MORE_FILES = 3  # a scrape, and two pipes of the puller that a worker started later inherits
SETTINGS = {
    "API_WORKERS": 2,
    "MODEL_POLL_SECONDS": 1,
    "PULL_SECONDS": 30,
    "HANG_SECONDS": 10,
    "HEAD_SECONDS": 5,
    "BODY_SECONDS": 10,
    "IDLE_SECONDS": 15,
    "MAX_CONNECTIONS_PER_ADDRESS": 100,
    "RECENT_REQUESTS": 1024,  # filled before the first measurement of memory
    "MLFLOW_HTTP_REQUEST_TIMEOUT": 4,
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": 0,
}
WORKERS = {"worker-0", "worker-1"}


class World:
    """The service with all around it, its processes by role, and what each of them took."""

    def __init__(self, folder, begun):
        bundle = ROOT / paths.CHAMPION
        if not bundle.exists():
            pytest.fail("needs models/champion: make repro")
        with np.load(ROOT / paths.processed("mnist")) as data:
            images = data["test_images"][:1000].reshape(-1, 28, 28)
        self.known = Known.of(bundle, [file(image) for image in images])
        self.hostile = list(corpus())
        self._folder, self._begun = folder, begun
        self.disk = SmallDisk(folder / "state", size=128)  # StateDiskFull below 64
        begun.callback(self.disk.close)
        self.mlflow_port = free_port()
        self.start_mlflow()
        begun.callback(lambda: self.signal_mlflow(signal.SIGKILL))
        self.registry = Registry(f"http://127.0.0.1:{self.mlflow_port}")
        self.good = self.registry.register(bundle)
        self.bad = self.registry.register(corrupt_copy(bundle, folder / "corrupt"))
        self.registry.promote(self.good)
        self.log = Log(folder / "service.log")
        begun.callback(self.log.close)
        port = free_port()
        self.service = Process(
            folder,
            output=self.log.writer,
            enter=self.disk.enter,
            API_PORT=port,
            MLFLOW_TRACKING_URI=self.registry.uri,
            **SETTINGS,
        )
        begun.callback(self.service.stop, signal.SIGKILL)
        self.service.url = f"http://127.0.0.1:{port}"
        self.service.ready()
        self.watch = Watch(folder, {"digits": port}, CLOCK)
        begun.callback(self.watch.close)
        self.traffic = Traffic(self.service.url, self.known)
        self.doomed = set()  # ports of the connections to processes that were killed
        self.peak = Counter()  # MB by process

    def start_mlflow(self):
        self.mlflow = server(self._folder, self.mlflow_port)
        await_server(f"http://127.0.0.1:{self.mlflow_port}")

    def signal_mlflow(self, number):
        os.killpg(self.mlflow.pid, number)
        if number == signal.SIGKILL:
            self.mlflow.wait()

    def processes(self):
        """Find the processes that run, by the files in which they count."""
        found = {}
        for pid in self.service.children():
            counts = _read(pid, "maps")
            role = re.search(r"_(worker-\d|puller)\.db", counts)
            if role and not re.search(r"^State:\s+[TZ]", _read(pid, "status"), re.MULTILINE):
                found[role[1]] = pid
        return found

    def is_whole(self):
        """Return whether all processes run, and what comes in is served and stored."""
        return self.processes().keys() == {*WORKERS, "puller"} and all(
            self._answers() for _ in range(4)
        )

    def _answers(self):
        with self.service.client() as api:
            if api.get("/health").json()["status"] != "healthy":
                return False
            answer = api.post("/predict", content=self.known.files[0], headers=PNG).json()
            label = {"request_id": answer["request_id"], "label": answer["prediction"]}
            return api.post("/feedback", json=label).status_code == 200

    def strike(self, role, number):
        """Send a signal that ends the process sooner or later, and note its connections."""
        self.measure()
        pid = self.processes()[role]
        os.kill(pid, signal.SIGSTOP)
        until(lambda: re.search(r"^State:\s+T", _read(pid, "status"), re.MULTILINE))
        found = psutil.Process(pid).net_connections("tcp")
        self.doomed |= {each.raddr.port for each in found if each.raddr}
        os.kill(pid, number)

    def measure(self):
        """Note the most memory that each worker has taken."""
        for role, pid in self.processes().items():
            if role in WORKERS:
                self.peak[pid] = _megabytes(pid, "VmHWM")
        assert max(self.peak.values()) < MOST_MB, self.peak

    def resting(self):
        """Return the memory and the open files of supervisor and workers, without traffic."""
        with self.service.client() as api:
            until(lambda: _is_idle(api.get("/metrics").text), self.service)
        found = {"supervisor": self.service.process.pid, **self.processes()}
        del found["puller"]
        return {
            role: (_megabytes(pid, "VmRSS"), len([*Path(f"/proc/{pid}/fd").iterdir()]))
            for role, pid in found.items()
        }


def _is_idle(metrics):
    return {"active_requests 0.0", "open_connections 1.0"} <= {*metrics.splitlines()}


def _read(pid, name):
    """Return a file of /proc; empty if the process is gone."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:
        return ""


def _megabytes(pid, name):
    return int(re.search(rf"^{name}:\s+(\d+)", _read(pid, "status"), re.MULTILINE)[1]) / 1024


class Log:
    """A pipe that the service writes to, copied to a file while it is `read`."""

    def __init__(self, path):
        self.path = path
        reader, self.writer = os.pipe()
        self.read = threading.Event()
        self.read.set()
        self._thread = threading.Thread(target=self._copy, args=(reader,))
        self._thread.start()

    def _copy(self, reader):
        with os.fdopen(reader, "rb", 0) as source, self.path.open("wb", 0) as copy:
            while content := source.read(65536):
                copy.write(content)
                self.read.wait()

    def lines(self):
        found = self.path.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in found if line[:1] == "{" and line[-1:] == "}"]

    def close(self):
        self.read.set()
        os.close(self.writer)
        self._thread.join()


# Each fault is a function that begins it, and returns one that ends it if the service does not.


def killed(role):
    return lambda world: world.strike(role, signal.SIGKILL)


def stopped(role):
    """SIGSTOP: the process is there and does nothing."""
    return lambda world: world.strike(role, signal.SIGSTOP)


def registry_killed(world):
    world.signal_mlflow(signal.SIGKILL)
    return world.start_mlflow


def registry_stopped(world):
    world.signal_mlflow(signal.SIGSTOP)
    return lambda: world.signal_mlflow(signal.SIGCONT)


def corrupted(world):
    """A version of the registry with one bit flipped gets the alias."""
    world.registry.promote(world.bad)
    return lambda: world.registry.promote(world.good)


def disk_filled(world):
    world.disk.fill()
    return world.disk.empty


def log_unread(world):
    world.log.read.clear()
    return world.log.read.set


def hostile(world):
    _send(world, world.hostile)


def warmed(world):
    """Large inputs, until the allocator keeps about as much as it ever will."""
    large = [each for each in world.hostile if len(each[2]) > 20_000 or "mega" in each[0]]
    for _ in range(16):
        _send(world, large)


def _send(world, inputs):
    """Send each input on a connection of its own."""
    for name, path, body, headers in inputs:
        with world.service.client() as api:
            response = api.post(path, content=body, headers=headers)
        fine = 400 <= response.status_code < 500
        fine |= response.status_code == 200 and any(part in name for part in MAY_BE_READ)
        assert fine, (name, response.text)


def unfinished(sent):
    """Forty clients, one after the other, that send no more than this, again and again."""

    def begin(world):
        done, pool = threading.Event(), ThreadPoolExecutor(40)

        def ask(number):
            done.wait(number / 4)
            while not done.is_set():
                assert status(read(connect(world.service, sent))) == 408

        asking = [pool.submit(ask, number) for number in range(40)]

        def end():
            done.set()
            pool.shutdown()
            for one in asking:
                one.result()

        return end

    return begin


def idle(world):
    with ExitStack() as opened:
        held = [opened.enter_context(websocket(world.service)) for _ in range(20)]
        closing = opened.pop_all()

    def end():
        with closing:
            for one in held:
                with pytest.raises(ConnectionClosed, match="IDLE_SECONDS"):
                    one.recv(HANG)

    return end


def flooded(world):
    """More and more connections than an address may have, all from one that is nobody else's."""
    host, port = world.service.url.removeprefix("http://").split(":")
    done = threading.Event()

    def connection():
        return create_connection((host, int(port)), HANG, source_address=("127.0.0.2", 0))

    def ask():
        while not done.wait(0.05):
            connection().close()

    held = [connection() for _ in range(300)]
    asking = threading.Thread(target=ask)
    asking.start()

    def end():
        done.set()
        asking.join()
        for one in held:
            one.close()

    return end


def pressed(world):
    """A client that sends large bodies as long as it may, and holds back the last byte of each."""
    size = 26 * 2**20
    head = HEAD.replace(b"/predict", b"/predict/batch").replace(b"image/png", b"application/json")
    head += b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % size
    held, done = [], threading.Event()

    def ask():
        while not done.wait(0.03):
            one = connect(world.service, head)
            if one.recv(1000).startswith(b"HTTP/1.1 100"):
                one.sendall(bytes(size - 1))
                held.append(one)
            else:
                one.close()

    asking = threading.Thread(target=ask)
    asking.start()

    def end():
        done.set()
        asking.join()
        statuses = {_finished(one) for one in held}
        assert 422 in statuses, statuses  # it is no batch
        assert statuses <= {422, 408}, statuses

    return end


def _finished(connection):
    with connection:
        with contextlib.suppress(ConnectionError):  # it came too late
            connection.sendall(b"0")
        return next_status(connection)


class Fault(NamedTuple):
    """A fault by its name in the table.

    `metrics`: counters that rise, and comparisons of gauges that hold. `alerts`: those that must
    fire; others may. `fatal`: it kills a process, with the requests that this process has.
    """

    name: str
    begin: Callable
    metrics: tuple[str, ...]
    alerts: tuple[str, ...] = ()
    fatal: bool = False

    def counted(self, watch):
        """Return the counters as they are now."""
        counters = [name for name in self.metrics if " " not in name]
        return {name: watch.value(f"sum({name})") or 0 for name in counters}

    def missing(self, watch, since, counted):
        """Return what has not been seen since then, when the counters were such."""
        seconds = max(time.time() - since, 0.001)
        found = self.counted(watch)
        unseen = {name for name, before in counted.items() if found[name] <= before}
        for gauge in {*self.metrics} - counted.keys():
            if not watch.query(f"max_over_time(({gauge})[{round(1000 * seconds)}ms:])"):
                unseen.add(gauge)
        return unseen | ({*self.alerts} - watch.firing(seconds))


def restarts(process, reason):
    return f'worker_restarts_total{{process="{process}",reason="{reason}"}}'


def reloads(outcome):
    return f'model_reloads_total{{outcome="{outcome}"}}'


def refused(setting):
    return f'connections_refused_total{{reason="{setting}"}}'


DOWN = (reloads("registry_unavailable"), "model_degraded == 1")
UNREACHABLE = ("RegistryUnreachable", "ModelDegraded")
RESTARTED = ("WorkerRestarted",)
REFUSED = ("ConnectionsRefused",)
BODY = b"Content-Length: 99\r\n\r\n"
# Those with the same alerts are apart, so that the alerts of one end before the next.
FAULTS = (
    Fault("worker killed", killed("worker-1"), (restarts("worker", "died"),), RESTARTED, True),
    Fault("hostile inputs", hostile, ("prediction_errors_total",)),
    Fault("registry killed", registry_killed, DOWN, UNREACHABLE),
    Fault("worker stopped", stopped("worker-1"), (restarts("worker", "hung"),), RESTARTED, True),
    Fault("disk full", disk_filled, ("state_free_bytes == 0",), ("StateDiskFull",)),
    Fault("heads held back", unfinished(HEAD), (refused("head_seconds"),), REFUSED),
    Fault("bodies held back", unfinished(HEAD + BODY), (refused("body_seconds"),), REFUSED),
    Fault(
        "puller killed",
        killed("puller"),
        (restarts("puller", "died"), reloads("puller_died")),
        ("WorkerRestarted", "ModelReloadFailed"),
        True,
    ),
    Fault(
        "large bodies held back",
        pressed,
        ('api_requests_total{status_code="503"}', "body_memory_bytes > 100e6"),
        ("HighErrorRatio",),
    ),
    Fault("flood of connections", flooded, (refused("max_connections_per_address"),), REFUSED),
    Fault("registry stopped", registry_stopped, DOWN, UNREACHABLE),
    Fault("log not read", log_unread, ("access_log_lost_lines_total",), ("LogLinesLost",)),
    Fault(
        "corrupt version promoted", corrupted, (reloads("bundle_invalid"),), ("ModelReloadFailed",)
    ),
    Fault("WebSockets idle", idle, (refused("idle_seconds"),)),
    Fault("puller stopped", stopped("puller"), (restarts("puller", "hung"),), RESTARTED, True),
)
WARMING = ("hostile inputs", "large bodies held back")
COLUMNS = ["fault", "times", "requests lost", "metrics", "alerts", "recovery"]


class Outcome(NamedTuple):
    """What a fault did: requests lost, and seconds until all was as before."""

    lost: int
    recovery: float


def suffered(world, fault):
    """Begin the fault, see it in metrics and alerts, end it, and await the recovery."""
    watch, lost = world.watch, world.traffic.lost
    within(lambda: not {*fault.alerts} & watch.firing(), PATIENCE, watch.firing)
    before, counted, began = len(lost), fault.counted(watch), time.time()

    def missing():
        return fault.missing(watch, began, counted)

    def seen():
        return f"{fault.name}: {missing()} not seen, {world.log.lines()[-20:]}"

    def until_whole():
        since = time.time()
        within(world.is_whole, PATIENCE, seen)
        return time.time() - since

    end = fault.begin(world)
    recovery = 0.0 if end else until_whole()
    try:
        within(lambda: not missing(), PATIENCE, seen)
    finally:
        if end:
            end()
    recovery = until_whole() if end else recovery
    world.measure()
    assert not world.traffic.wrong, (fault.name, world.traffic.wrong[:5])
    assert {port for port, *_ in lost} <= world.doomed, (fault.name, lost)
    found = len(lost) - before
    assert fault.fatal or not found, (fault.name, lost)
    print(f"{fault.name}: {found} lost, whole after {recovery:.1f} s, of {time.time() - began:.0f}")
    return Outcome(found, recovery)


def rows(outcomes):
    """The lines of the table."""
    for fault in FAULTS:
        found = outcomes[fault.name]
        lost = sum(each.lost for each in found)
        yield [
            fault.name,
            str(len(found)),
            f"{lost}, in the killed process" if lost else "0",
            ", ".join(f"`{metric}`" for metric in fault.metrics),
            ", ".join(fault.alerts) or "none",
            f"{max(each.recovery for each in found):.1f} s",
        ]


def figures(world, before, after):
    """The lines of the other table."""
    answers = world.traffic.answers
    for path in dict.fromkeys(path for path, _ in sorted(answers)):
        counts = {code: count for (where, code), count in sorted(answers.items()) if where == path}
        yield [f"`{path}`", ", ".join(f"{count:,} with {code}" for code, count in counts.items())]
    yield ["answers that were wrong", str(len(world.traffic.wrong))]
    yield ["requests lost", str(len(world.traffic.lost))]
    yield ["most memory of a worker", f"{max(world.peak.values()):.0f} MB, of {MOST_MB} MB"]
    for role, name in (("worker-0", "worker that was never killed"), ("supervisor", "supervisor")):
        (old, files), (new, more) = before[role], after[role]
        yield [f"memory of the {name}, before and after the faults", f"{old:.0f} MB, {new:.0f} MB"]
        yield ["its open files", f"{files}, {more}"]


def test_the_table_has_these_faults_metrics_and_alerts():
    table = tables.read("soak-faults")
    assert table.columns == COLUMNS
    expected = [
        row[:1] + row[3:5] for row in rows({fault.name: [Outcome(0, 0)] for fault in FAULTS})
    ]
    assert [row[:1] + row[3:5] for row in table.rows] == expected


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with ExitStack() as begun:
        yield World(tmp_path, begun)


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(60 * MINUTES + 3600)
@pytest.mark.system("prometheus", "prometheus")
@pytest.mark.system("prometheus-alertmanager", "prometheus-alertmanager")
@pytest.mark.system("unshare", "util-linux")
def test_no_answer_is_wrong_or_lost_whatever_happens(world):
    by_name = {fault.name: fault for fault in FAULTS}
    outcomes = {name: [] for name in by_name}
    until(world.is_whole, world.service)
    with world.traffic:
        warmed(world)
        for name in WARMING:
            suffered(world, by_name[name])
    before = world.resting()
    ends = time.time() + 60 * MINUTES
    with world.traffic:
        for fault in cycle(FAULTS):
            if time.time() > ends and all(outcomes.values()):
                break
            outcomes[fault.name].append(suffered(world, fault))
    after = world.resting()
    print(before, after, world.peak)
    for role, (memory, files) in after.items():
        assert memory < before[role][0] + GROWTH_MB
        assert files <= before[role][1] + MORE_FILES
    assert not [line for line in world.log.lines() if "exception" in line]
    world.service.ctrl_c()
    assert world.service.process.wait(HANG) == 0
    if os.environ.get("RECORD"):
        command = f"make soak SOAK_MINUTES={MINUTES:g} RECORD=--record"
        for name, columns, lines in (
            ("soak-faults", COLUMNS, rows(outcomes)),
            ("soak-figures", ["what", "found"], figures(world, before, after)),
        ):
            tables.write(name, tables.Table(command, recorded.machine(), columns, [*lines]))
