import json
import os
import signal
import socket
import subprocess
import threading
import time

import httpx2
import psutil
import pytest
from support.bundles import PNG, picture
from support.connections import connect, metric
from support.processes import is_running, megabytes, python
from support.service_process import until

from serve.processes.supervisor import Child
from serve.settings import Settings
from serve.telemetry import logs


def get(api, path):
    """The text of the answer; empty if the worker is gone that had the connection."""
    try:
        return api.get(path).text
    except httpx2.TransportError:
        return ""


def predict(api):
    return api.post("/predict", content=picture(), headers=PNG)


def test_it_is_ready_soon_small_and_stops_when_asked(ready):
    service = ready(API_WORKERS=2)
    assert max(megabytes(pid) for pid in service.children()) < 150
    children = service.children()
    assert service.stop() == 0
    assert not any(is_running(pid) for pid in children)


def test_what_it_writes_is_its_users_alone(service):
    with service.client() as api:
        given = {"request_id": predict(api).json()["request_id"], "label": 3}
        assert api.post("/feedback", json=given).status_code == 200
    state = service.folder / "state"
    written = [state, *state.rglob("*")]
    names = {"feedback.db", "serve.lock", "0.ring", "current.json"}
    assert {path.name for path in written} >= names
    assert [path for path in written if path.stat().st_mode & 0o077] == []


def test_process_metrics_are_of_all_processes_and_cpu_time_outlives_one(ready):
    service = ready(API_WORKERS=2)

    def process(name):
        return metric(service, f"process_{name} ")

    processes = [psutil.Process(pid) for pid in (service.process.pid, *service.children())]
    resident = sum(each.memory_info().rss for each in processes)
    assert process("resident_memory_bytes") == pytest.approx(resident, rel=0.1)
    assert process("start_time_seconds") == pytest.approx(processes[0].create_time(), abs=2)
    before = process("cpu_seconds_total")
    os.kill(service.children()[0], signal.SIGKILL)
    until(lambda: len(service.children()) == 2, service)
    assert process("cpu_seconds_total") >= before


def test_a_worker_that_hangs_is_replaced_and_counted(ready):
    service = ready(API_WORKERS=2, HANG_SECONDS=10)
    connections = unfinished(service, 4)
    hung, healthy = service.children()
    os.kill(hung, signal.SIGSTOP)
    until(lambda: hung not in service.children(), service, 300)
    until(lambda: len(service.children()) == 2, service)
    assert healthy in service.children()
    for connection in connections:
        connection.close()
    replaced = 'worker_restarts_total{process="worker",reason="hung"} 1.0'
    with service.client() as api:
        until(lambda: "\nactive_requests 0.0" in api.get("/metrics").text, service)
        assert replaced in api.get("/metrics").text
    os.kill(healthy, signal.SIGKILL)
    died = 'worker_restarts_total{process="worker",reason="died"} 1.0'
    with service.client() as api:
        until(lambda: died in get(api, "/metrics"), service)
        assert replaced in api.get("/metrics").text
    assert service.stop() == 0


def test_a_stopped_worker_ends_with_the_service(ready):
    service = ready(API_WORKERS=1, DRAIN_SECONDS=0, SHUTDOWN_SECONDS=1)
    (worker,) = service.children()
    os.kill(worker, signal.SIGSTOP)
    assert service.stop() == 0
    assert not is_running(worker)


def test_on_a_stop_readiness_goes_first_and_requests_in_flight_finish(ready):
    service = ready(API_WORKERS=1, DRAIN_SECONDS=3)
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


def unfinished(service, count=1):
    """Connections that have sent a request but for the end of its picture."""
    head = f"Host: x\r\nContent-Type: image/png\r\nContent-Length: {len(picture())}"
    connections = [connect(service) for _ in range(count)]
    for connection in connections:
        connection.sendall(f"POST /predict HTTP/1.1\r\n{head}\r\n\r\n".encode() + picture()[:20])
    with service.client() as api:
        until(lambda: f"\nactive_requests {count}.0" in api.get("/metrics").text, service)
    return connections


def stopping(service):
    return any(line["message"] == "stopping" for line in service.lines())


@pytest.mark.fault("Ctrl-C amid requests", "0 of 6", "200")
def test_ctrl_c_lets_requests_in_flight_finish(ready):
    service = ready(API_WORKERS=2, DRAIN_SECONDS=0)
    connections = unfinished(service, 6)
    for worker in service.children():  # which may get the signal long before their parent
        os.kill(worker, signal.SIGINT)
    time.sleep(0.2)
    service.ctrl_c()
    until(lambda: stopping(service), service)
    for byte in picture()[20:40]:  # slowly, so that a worker that does not wait is gone
        time.sleep(0.05)
        for connection in connections:
            connection.sendall(bytes([byte]))
    for connection in connections:
        with connection:
            connection.sendall(picture()[40:])
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
    assert service.process.wait(60) == 0


@pytest.mark.fault(
    "request longer than `SHUTDOWN_SECONDS`",
    "that request",
    "503 as JSON with `Retry-After`; a line in the log",
)
@pytest.mark.parametrize("stop", ["ctrl_c", "stop"])
def test_a_request_that_does_not_end_in_time_is_answered_503(ready, stop):
    service = ready(API_WORKERS=1, DRAIN_SECONDS=0, SHUTDOWN_SECONDS=1)
    (connection,) = unfinished(service)
    getattr(service, stop)()
    with connection, connection.makefile("rb") as answer:
        head, _, body = answer.read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503")
    assert b"\r\nretry-after: 1\r\n" in head
    assert json.loads(body) == {"detail": "the service is stopping: try again in a second"}
    assert service.process.wait(60) == 0
    (line,) = (line for line in service.lines() if line.get("path") == "/predict")
    assert line["status"] == 503


def test_a_second_ctrl_c_ends_it_at_once(ready):
    service = ready(API_WORKERS=2, SHUTDOWN_SECONDS=600)
    children = service.children()
    (connection,) = unfinished(service)
    service.ctrl_c()
    until(lambda: stopping(service), service)
    service.ctrl_c()
    with connection:
        assert service.process.wait(60) == 0
    assert not any(is_running(pid) for pid in children)


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
    until(lambda: not any(is_running(pid) for pid in children))


def test_every_request_is_one_line_of_json(service):
    with service.client() as api:
        api.get("/nothing%22%0aforged", headers={"x-request-id": "mine"})
        predicted = predict(api).json()["request_id"]
    fields = {"time", "level", "message", "request_id", "method", "path", "status"}
    fields |= {"duration_ms", "client"}
    for identity, about in (
        ("mine", ("GET", '/nothing"\nforged', 404)),
        (predicted, ("POST", "/predict", 200)),
    ):
        until(lambda wanted=identity: logged(service, wanted), service)
        (line,) = logged(service, identity)
        assert set(line) == fields
        assert (line["method"], line["path"], line["status"]) == about


def logged(service, identity):
    return [line for line in service.lines() if line.get("request_id") == identity]


def fails(**environment):
    """What a start that fails says."""
    done = python("-m", "serve", env=os.environ | environment)
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


def test_a_second_start_leaves_the_first_and_its_metrics_alone(ready, made, tmp_path):
    service = ready(API_WORKERS=2)
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


def test_children_do_not_hold_the_state_of_a_parent_that_is_gone(ready, start):
    service = ready(API_WORKERS=1)
    (worker,) = service.children()
    os.kill(worker, signal.SIGSTOP)
    try:
        service.process.kill()
        service.process.wait()
        start().ready()
    finally:
        os.kill(worker, signal.SIGKILL)


def test_a_child_that_fails_says_so_in_the_log(capfd):
    def work(beat):
        logs.configure(Settings(log_format="json"))
        raise ZeroDivisionError("why")

    ends = []
    child = Child("worker 0", work, died=ends.append, patience=60)
    child.start()
    child.reap()
    assert ends == ["died"]
    out, err = capfd.readouterr()
    assert "ZeroDivisionError: why" in json.loads(out)["exception"]
    assert err == ""


def test_it_warns_where_workers_count_alone_in_any_locale(ready):
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": 0, "PYTHONUTF8": 0}
    service = ready(API_WORKERS=2, RATE_LIMIT="5/minute", **ascii_only)
    assert "RATE_LIMIT_STORAGE=redis://…" in service.output()
    assert "Error" not in service.output()


def test_head_is_answered_as_get_without_the_body(service):
    with service.client() as api:
        for path in ("/", "/health/ready", "/api/info", "/static/page.js"):
            got, head = api.get(path), api.head(path, timeout=5)
            assert head.status_code == 200
            assert head.content == b""
            assert head.headers["content-length"] == got.headers["content-length"]
        assert api.head("/nothing", timeout=5).status_code == 404
        assert api.head("/predict", timeout=5).status_code == 405


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
def test_with_redis_replicas_count_together(ready, redis, tmp_path):
    limited = {"RATE_LIMIT": "12/minute", "RATE_LIMIT_STORAGE": redis, "API_WORKERS": 2}
    statuses = []
    for replica in "ab":
        (tmp_path / replica).mkdir()
        service = ready(tmp_path / replica, **limited)
        assert "RATE_LIMIT_STORAGE" not in service.output()
        for _ in range(10):
            with service.client() as api:  # a connection of its own, to either worker
                statuses.append(predict(api).status_code)
    assert statuses == [200] * 12 + [429] * 8


def test_many_at_once_are_all_answered(ready):
    service = ready(API_WORKERS=2)
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


def test_a_request_that_comes_while_the_worker_is_held_up_is_answered(ready):
    service = ready(API_WORKERS=1)
    (worker,) = service.children()
    with service.client() as api:
        assert predict(api).status_code == 200
        os.kill(worker, signal.SIGSTOP)
        # Longer than the 5 s after which uvicorn by itself closes an idle connection.
        threading.Timer(6, os.kill, (worker, signal.SIGCONT)).start()
        assert predict(api).status_code == 200  # on the connection that was idle
