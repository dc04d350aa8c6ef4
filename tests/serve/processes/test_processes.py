import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.bundles import PNG, picture
from support.service_process import ROOT, until

from serve.processes.supervisor import Child
from serve.settings import Settings
from serve.telemetry import logs


def memory(pid):
    """Resident, in MB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^VmRSS:\s+(\d+)", text, re.MULTILINE)[1]) / 1024


def connect(service):
    host, port = service.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), 60)


def predict(api):
    return api.post("/predict", content=picture(), headers=PNG)


def runs(pid):
    """Whether the process is there and not only its name."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_it_is_ready_soon_small_and_stops_when_asked(start):
    service = start(API_WORKERS=2)
    service.ready()
    assert max(memory(pid) for pid in service.children()) < 150
    children = service.children()
    assert service.stop() == 0
    assert not any(runs(pid) for pid in children)


def test_metrics_are_the_sum_of_all_workers_and_outlive_one(start):
    service = start(API_WORKERS=2)
    service.ready()

    def total():
        with service.client() as api:
            text = api.get("/metrics").text
        return float(re.search(r"^predictions_total{.*} (\S+)$", text, re.MULTILINE)[1])

    for _ in range(40):
        with service.client() as api:  # a new connection, so either worker
            assert predict(api).status_code == 200
    assert total() == 40
    os.kill(service.children()[0], signal.SIGKILL)
    until(lambda: len(service.children()) == 2, service)
    for _ in range(10):
        with service.client() as api:
            assert predict(api).status_code == 200
    assert total() == 50
    with service.client() as api:
        assert "\nactive_requests 0.0" in api.get("/metrics").text


def test_a_killed_worker_is_replaced_at_once_and_nobody_else_notices(start):
    service = start(API_WORKERS=2)
    service.ready()
    for _ in range(3):
        victim = service.children()[0]
        os.kill(victim, signal.SIGKILL)
        until(lambda gone=victim: gone not in service.children(), service)
        until(lambda: len(service.children()) == 2, service)
        with service.client() as api:
            assert predict(api).status_code == 200


def test_on_a_stop_readiness_goes_first_and_requests_in_flight_finish(start):
    service = start(API_WORKERS=1, DRAIN_SECONDS=3)
    service.ready()
    body, idle, slow = picture(), connect(service), connect(service)
    head = f"Host: x\r\nContent-Type: image/png\r\nContent-Length: {len(body)}"
    slow.sendall(f"POST /predict HTTP/1.1\r\n{head}\r\n\r\n".encode() + body[:20])
    with service.client() as api:
        service.process.send_signal(signal.SIGTERM)
        until(lambda: api.get("/health/ready").status_code == 503, service)
        assert api.get("/health/live").status_code == 200
        assert predict(api).status_code == 200
    with idle:
        assert idle.recv(1) == b""  # past the drain: it stops, but for this request
    slow.sendall(body[20:])
    assert slow.recv(100).startswith(b"HTTP/1.1 200")
    slow.close()
    assert service.stop() == 0


def test_a_request_that_never_ends_does_not_stop_the_stop(start):
    service = start(API_WORKERS=1, DRAIN_SECONDS=0, SHUTDOWN_SECONDS=1)
    service.ready()
    with connect(service) as slow:
        slow.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n")
        time.sleep(0.2)
        assert service.stop() == 0


@pytest.mark.parametrize("early", [True, False])
def test_workers_do_not_outlive_their_parent(start, early):
    service = start(API_WORKERS=2)
    if early:  # while they start
        until(lambda: len(service.children()) == 2, service)
    else:
        service.ready()
    children = service.children()
    service.process.kill()
    service.process.wait()
    until(lambda: not any(runs(pid) for pid in children))


def test_every_request_is_one_line_of_json(start):
    service = start(API_WORKERS=1)
    service.ready()
    with service.client() as api:
        api.get("/nothing%22%0aforged", headers={"x-request-id": "mine"})
        api.post("/predict", content=picture(), headers=PNG)
    assert service.stop() == 0
    requests = [line for line in service.lines() if line["message"] == "request"]
    forged = next(line for line in requests if line["request_id"] == "mine")
    assert forged["path"] == '/nothing"\nforged'
    assert (forged["status"], forged["method"]) == (404, "GET")
    predicted = next(line for line in requests if line["path"] == "/predict")
    assert set(predicted) == {
        *("time", "level", "message", "request_id", "method", "path", "status"),
        *("duration_ms", "client"),
    }


def fails(**environment):
    """What a start that fails says."""
    done = subprocess.run(
        [sys.executable, "-m", "serve"],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"API_PORT": "many"}, "API_PORT=many: Input should be a valid integer"),
        ({"MODEL_URI": "/no/such/folder"}, "MODEL_URI=/no/such/folder"),
        ({"API_HOST": "203.0.113.1"}, "cannot listen on 203.0.113.1:0"),
    ],
)
def test_wrong_settings_stop_it_at_once_in_words(environment, words, tmp_path):
    said = fails(**{"API_PORT": "0", "STATE_DIR": str(tmp_path), **environment})
    assert said.startswith("error: ")
    assert words in said


def test_a_second_start_leaves_the_first_and_its_metrics_alone(start, made, tmp_path):
    service = start(API_WORKERS=2)
    service.ready()
    state = tmp_path / "state"
    with service.client() as api:
        assert predict(api).status_code == 200
        given = {"MODEL_URI": str(made[3]), "STATE_DIR": str(state), "API_PORT": "0"}
        assert fails(**given) == (
            f"error: STATE_DIR={state} is in use by process {service.process.pid}:"
            " set another STATE_DIR, or stop that process\n"
        )
        assert "\npredictions_total{" in api.get("/metrics").text


def test_a_start_without_a_port_empties_nothing(made, tmp_path):
    counted = tmp_path / "metrics" / "counter_worker-0.db"
    counted.parent.mkdir()
    counted.touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = fails(MODEL_URI=str(made[3]), STATE_DIR=str(tmp_path), API_PORT=port)
    assert "cannot listen" in said
    assert counted.exists()


def test_children_do_not_hold_the_state_of_a_parent_that_is_gone(start):
    service = start(API_WORKERS=1)
    service.ready()
    (worker,) = service.children()
    os.kill(worker, signal.SIGSTOP)
    try:
        service.process.kill()
        service.process.wait()
        start().ready()
    finally:
        os.kill(worker, signal.SIGKILL)


def test_a_child_that_fails_says_so_in_the_log(capfd):
    def work():
        logs.configure(Settings(log_format="json"))
        raise ZeroDivisionError("why")

    ends = []
    child = Child("worker 0", work, died=lambda: ends.append("died"))
    child.start()
    child.reap()
    assert ends == ["died"]
    out, err = capfd.readouterr()
    assert "ZeroDivisionError: why" in json.loads(out)["exception"]
    assert err == ""


def test_it_warns_where_workers_count_alone_in_any_locale(start):
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": 0, "PYTHONUTF8": 0}
    service = start(API_WORKERS=2, RATE_LIMIT="5/minute", **ascii_only)
    service.ready()
    assert "RATE_LIMIT_STORAGE=redis://…" in service.output()
    assert "Error" not in service.output()


def test_head_is_answered_as_get_without_the_body(start):
    service = start(API_WORKERS=1)
    service.ready()
    with service.client() as api:
        for path in ("/", "/health/ready", "/api/info", "/static/page.js"):
            got, head = api.get(path), api.head(path, timeout=5)
            assert head.status_code == 200
            assert head.content == b""
            assert head.headers["content-length"] == got.headers["content-length"]
        assert api.head("/nothing", timeout=5).status_code == 404
        assert api.head("/predict", timeout=5).status_code == 405


@pytest.mark.parametrize("header", [b"x: " + b"y" * 4096 + b"\r\n", b"y" * 4096])
def test_endless_headers_are_refused_before_they_fill_the_memory(start, header):
    service = start(API_WORKERS=1, API_KEYS="one")
    service.ready()
    (worker,) = service.children()
    before, sent = memory(worker), 0
    with connect(service) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nx: ")
        with contextlib.suppress(ConnectionError):
            while sent < 50e6:
                connection.sendall(header)
                sent += len(header)
    assert sent < 20e6  # what the system keeps on the way
    assert memory(worker) < before + 20
    with service.client() as api:
        assert api.get("/health").status_code == 200


@pytest.fixture
def redis(tmp_path):
    """The address of a Redis that is this test's own."""
    socket_file = tmp_path / "redis.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", str(socket_file), "--save", ""]
    with subprocess.Popen([*command, "--dir", tmp_path], stdout=subprocess.DEVNULL) as server:
        until(socket_file.exists)
        yield f"redis+unix://{socket_file}"
        server.terminate()


@pytest.mark.system("redis-server", "redis-server")
def test_with_redis_replicas_count_together(start, redis, tmp_path):
    limited = {"RATE_LIMIT": "12/minute", "RATE_LIMIT_STORAGE": redis, "API_WORKERS": 2}
    statuses = []
    for replica in "ab":
        (tmp_path / replica).mkdir()
        service = start(tmp_path / replica, **limited)
        service.ready()
        assert "RATE_LIMIT_STORAGE" not in service.output()
        for _ in range(10):
            with service.client() as api:  # a connection of its own, to either worker
                statuses.append(predict(api).status_code)
    assert statuses == [200] * 12 + [429] * 8


def test_many_at_once_are_all_answered(start):
    service = start(API_WORKERS=2)
    service.ready()
    wrong = []

    def ask():
        with service.client() as api:
            for number in range(20):
                content = picture((28, 60, 300)[number % 3])
                answer = api.post("/predict", content=content, headers=PNG)
                if answer.status_code != 200 or answer.json()["prediction"] != 3:
                    wrong.append(answer.text)

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_request_that_comes_while_the_worker_is_held_up_is_answered(start):
    service = start(API_WORKERS=1)
    service.ready()
    (worker,) = service.children()
    with service.client() as api:
        assert predict(api).status_code == 200
        os.kill(worker, signal.SIGSTOP)
        # Longer than the 5 s after which uvicorn by itself closes an idle connection.
        threading.Timer(6, os.kill, (worker, signal.SIGCONT)).start()
        assert predict(api).status_code == 200  # on the connection that was idle
