import contextlib
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient
from support.alerting import counters
from support.mlflow_registry import NAME, Registry
from support.service_process import ROOT, until

from serve.models import bundle_cache, drift_reference, registry_sync
from serve.models.bundle_digest import likelihood_digest, model_digest
from serve.models.registry_sync import RegistrySync
from serve.telemetry.logs import JsonFormatter


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """An empty database of MLflow; migrating one takes seconds."""
    file = tmp_path_factory.mktemp("registry") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def registry(database, tmp_path, monkeypatch):
    """A registry without versions."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    copy = shutil.copy(database, tmp_path)
    return Registry(f"sqlite:///{copy}", (tmp_path / "artifacts").as_uri())


@pytest.fixture
def pulling(registry, settings):
    """Makes a puller of that registry; its outcomes and cache."""

    def make(uri="models:/mnist-classifier@champion", **changed):
        given = settings(model_uri=uri, mlflow_tracking_uri=registry.uri, **changed)
        outcomes = []
        return (
            RegistrySync(given, *given.sources, outcomes.append),
            outcomes,
            bundle_cache.open_cache(given, *given.sources),
        )

    return make


def test_it_follows_the_alias_and_keeps_the_previous(registry, pulling, made):
    pull, outcomes, cache = pulling()
    one, two = (
        registry.register(made[digit], **{"bundle.digest": model_digest(made[digit])})
        for digit in (3, 8)
    )
    registry.promote(one)
    assert pull.pull()
    assert cache.pointer().current.version == one
    assert pull.pull()
    assert outcomes == ["success"]
    registry.promote(two)
    assert pull.pull()
    registry.promote(one)  # back: it is in the cache
    shutil.rmtree(Path(registry.uri.removeprefix("sqlite:///")).parent / "artifacts")
    assert pull.pull()
    pointer = cache.pointer()
    assert (pointer.current.version, pointer.previous.version) == (one, two)
    assert outcomes == ["success"] * 3


def test_a_fixed_version_is_brought(registry, pulling, made):
    version = registry.register(made[8])
    pull, outcomes, cache = pulling("models:/mnist-classifier/1")
    assert pull.pull()
    assert cache.pointer().current.version == version == "1"
    assert outcomes == ["success"]


def test_what_drift_is_measured_against_comes_along(registry, pulling, made, tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(made[3], bundle)
    (bundle / drift_reference.FILE).write_bytes(b"what was seen")
    registry.promote(registry.register(bundle))
    pull, _, cache = pulling()
    assert pull.pull()
    brought = cache.path(cache.pointer().current) / drift_reference.FILE
    assert brought.read_bytes() == b"what was seen"


def test_a_corrupt_version_is_refused_and_the_old_one_stays(registry, pulling, made, tmp_path):
    pull, outcomes, cache = pulling()
    good = registry.register(made[3])
    registry.promote(good)
    assert pull.pull()
    bad = tmp_path / "bad"
    shutil.copytree(made[8], bad)
    content = bytearray((bad / "model.tflite").read_bytes())
    content[len(content) // 2] ^= 1
    (bad / "model.tflite").write_bytes(content)
    corrupt = registry.register(bad)
    registry.promote(corrupt)
    assert not pull.pull()
    assert cache.pointer().current.version == good
    assert cache.failure() == f"version {corrupt} of the registry is no valid bundle"
    registry.promote(good)
    assert pull.pull()
    assert cache.failure() == ""
    assert outcomes == ["success", "bundle_invalid"]


def test_a_corrupt_copy_is_brought_again(registry, pulling, made):
    pull, outcomes, cache = pulling()
    one, two = (registry.register(made[digit]) for digit in (3, 8))

    def spoil(release):
        path = cache.path(release) / "model.tflite"
        path.write_bytes(path.read_bytes()[:1000])

    for version in (one, two):
        registry.promote(version)
        assert pull.pull()
    spoil(cache.pointer().current)
    assert pull.pull()
    assert cache.is_intact(cache.pointer().current)
    spoil(cache.pointer().previous)
    registry.promote(one)  # back
    assert pull.pull()
    assert cache.pointer().current.version == one
    assert cache.is_intact(cache.pointer().current)
    assert outcomes == ["success"] * 4


@pytest.mark.parametrize("tag", ["bundle.digest", "bundle.likelihood", "bundle.int8"])
def test_another_bundle_than_was_registered_is_refused(registry, pulling, made, tag):
    pull, outcomes, cache = pulling()
    right = {
        "bundle.digest": model_digest(made[3]),
        "bundle.likelihood": likelihood_digest(made[3]),
    }
    registry.promote(registry.register(made[3], **right | {tag: "other"}))
    assert not pull.pull()
    assert cache.pointer() is None
    registry.promote(registry.register(made[3], **right))
    assert pull.pull()
    assert outcomes == ["bundle_invalid", "success"]


def test_a_version_number_that_means_another_bundle_now_is_brought(registry, pulling, made):
    pull, _, cache = pulling()
    registry.promote(registry.register(made[3]))
    assert pull.pull()
    first = cache.pointer().current
    registry.client.delete_registered_model("mnist-classifier")
    registry.client.create_registered_model("mnist-classifier")
    registry.promote(registry.register(made[8]))
    assert pull.pull()
    second = cache.pointer().current
    assert first.version == second.version == "1"
    assert first.folder != second.folder


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        (
            "models:/mnist-classifier@nobody",
            "mnist-classifier has no version with the alias nobody: make repro",
        ),
        ("models:/mnist-classifier/99", "mnist-classifier has no version 99: change MODEL_URI"),
        ("models:/x@y", "x has no version with the alias y: make repro"),
    ],
)
def test_what_is_not_in_the_registry_is_named_and_waited_for(pulling, caplog, uri, reason):
    pull, outcomes, cache = pulling(uri)
    assert not pull.pull()
    assert outcomes == ["registry_unavailable"]
    assert cache.failure() == reason
    assert caplog.messages == [reason]


@pytest.fixture
def reason(settings):
    """Pulls from a registry that fails; why, as `/health` says it."""

    def pull(tracking_uri):
        given = settings(
            model_uri="models:/mnist-classifier@champion", mlflow_tracking_uri=tracking_uri
        )
        outcomes = []
        assert not RegistrySync(given, *given.sources, outcomes.append).pull()
        assert outcomes == ["registry_unavailable"]
        return bundle_cache.open_cache(given, *given.sources).failure()

    return pull


def test_a_server_that_is_no_registry_is_not_one_without_the_alias(reason):
    class NotFound(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(404)

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), NotFound) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        said = reason(f"http://127.0.0.1:{server.server_port}")
    assert said == "the registry cannot be read"


def test_a_database_that_is_not_there_is_not_made(reason, tmp_path):
    assert reason(f"sqlite:///{tmp_path}/none.db") == "the registry cannot be read"
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize("password", ["hunter2", "hun/ter2", "hun@ter2"])
@pytest.mark.parametrize("address", ["http://bob:{}@127.0.0.1:9", "nonsense://bob:{}@127.0.0.1/db"])
def test_no_message_holds_the_password_of_the_registry(
    reason, monkeypatch, caplog, address, password
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    said = reason(address.format(password)) + caplog.text
    assert "the registry cannot be read" in said
    assert "ter2" not in said
    assert "bob" not in said


def test_an_address_in_a_message_keeps_all_but_who_asks():
    told = registry_sync._masked(
        OSError("no http://bob:hunter2@host/x nor sqlite:////home/a@b/mlflow.db")
    )
    assert told == "no http://***@host/x nor sqlite:////home/a@b/mlflow.db"


def test_a_database_without_its_driver_is_a_line(reason, caplog):
    reason("mssql+pymssql://bob:hunter2@127.0.0.1/db")
    assert caplog.messages == ["the registry cannot be read: No module named 'pymssql'"]


def test_what_nobody_thought_of_is_said_and_counted(pulling, monkeypatch, caplog):
    pull, outcomes, cache = pulling()

    def broken(address="http://bob:hunter2@host"):
        try:
            raise KeyError(address)
        except KeyError as error:
            raise ZeroDivisionError(address) from error

    monkeypatch.setattr(pull, "_resolve", broken)
    assert not pull.pull()
    assert outcomes == ["unexpected_error"]
    assert cache.failure() == "the model cannot be brought: ZeroDivisionError"
    (record,) = caplog.records
    assert record.getMessage() == "the model cannot be brought: ZeroDivisionError: http://***@host"
    line = JsonFormatter().format(record)
    assert "in broken" in line
    assert "hunter2" not in line


def full(*arguments):
    raise OSError(28, "No space left on device")


def test_a_cache_that_cannot_be_locked_does_not_end_the_watch(pulling, registry, made, monkeypatch):
    registry.promote(registry.register(made[3]))
    pull, outcomes, _ = pulling()
    monkeypatch.setattr(bundle_cache.BundleCache, "lock", full)
    assert not pull.pull()
    assert outcomes[-1] == "unexpected_error"


def test_on_a_full_disk_the_version_in_service_stays_and_is_called_old(
    pulling, registry, made, monkeypatch
):
    one, two = (registry.register(made[digit]) for digit in (3, 8))
    registry.promote(one)
    pull, outcomes, cache = pulling()
    assert pull.pull()
    registry.promote(two)
    with monkeypatch.context() as changed:
        changed.setattr(bundle_cache.shutil, "copyfile", full)
        changed.setattr(bundle_cache.BundleCache, "_write", full)
        assert not pull.pull()
    assert outcomes[-1] == "registry_unavailable"
    assert cache.pointer().current.version == str(one)
    assert cache.failure().startswith("STATE_DIR cannot be written")
    assert pull.pull()
    assert (cache.pointer().current.version, cache.failure()) == (str(two), "")


def test_retries_come_later_and_later_until_it_is_there(registry, settings, made):
    given = settings(
        model_uri="models:/mnist-classifier@champion",
        mlflow_tracking_uri=registry.uri,
        model_poll_seconds=30,
    )
    pauses = []

    def wait(seconds):
        pauses.append(seconds)
        if len(pauses) == 7:
            registry.promote(registry.register(made[3]))

    registry_sync.bring(given, lambda outcome: None, wait)
    for pause, expected in zip(pauses, [2, 4, 8, 16, 30, 30, 30], strict=True):
        assert 0.9 * expected <= pause <= 1.1 * expected


def test_a_model_that_is_missing_keeps_no_other_from_being_followed(
    registry, settings, made, colours
):
    given = settings(models="mnist-classifier,colours", mlflow_tracking_uri=registry.uri)
    digits, others = (bundle_cache.open_cache(given, source) for source in given.sources)
    registry.promote(registry.register(made[3]))
    seen = []

    def wait(seconds):
        if not seconds:
            return  # a sign of life between two models
        seen.append((digits.pointer().current.version, others.pointer(), others.failure()))
        if len(seen) == 1:
            registry.promote(registry.register(made[8]))
        else:
            second = Registry(registry.uri, registry.artifacts, "colours")
            second.promote(second.register(colours))

    registry_sync.bring(given, lambda outcome: None, wait)
    missing = "colours has no version with the alias champion: make repro"
    assert seen == [("1", None, missing), ("2", None, missing)]
    assert others.pointer().current.version == "1"
    assert (digits.failure(), others.failure()) == ("", "")


def test_workers_know_nothing_of_mlflow_or_what_trains():
    look = """
import sys, serve.__main__, serve.processes.worker, serve.app
from serve.settings import Settings
serve.app.create_app(Settings(rate_limit="1/minute"))
unwanted = {"mlflow", "sqlalchemy", "tensorflow", "keras", "dvc", "hydra", "matplotlib", "pandas"}
print(sorted(unwanted & set(sys.modules)), [m for m in sys.modules if m.startswith("pipeline")])
"""
    done = subprocess.run(
        [sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[] []\n"


def test_the_service_follows_a_registry_that_comes_and_goes(registry, start, made, tmp_path):
    database = Path(registry.uri.removeprefix("sqlite:///"))
    one, two = (registry.register(made[digit]) for digit in (3, 8))
    options = {
        "MODEL_URI": "models:/mnist-classifier@champion",
        "MLFLOW_TRACKING_URI": registry.uri,
        "MODEL_POLL_SECONDS": "0.3",
        "API_WORKERS": "2",
    }
    service = start(**options)
    with service.client() as api:
        until(lambda: api.get("/health").json()["status"] == "degraded", service)
        assert api.get("/health/ready").status_code == 503

        def health():
            return api.get("/health").json()

        def serves(version):
            # Both workers, one of which each new connection meets.
            found = set()
            for _ in range(8):
                with service.client() as other:
                    found.add(other.get("/health").json()["model_version"])
            return found == {version}

        registry.promote(one)
        until(lambda: serves(one), service)
        registry.promote(two)
        until(lambda: serves(two), service)
        assert health() == {
            "status": "healthy",
            "model_loaded": True,
            "model_name": "mnist-classifier",
            "model_version": two,
            "reason": None,
        }
        made_at = registry.client.get_model_version(NAME, two).creation_timestamp / 1000
        database.rename(tmp_path / "away.db")
        until(lambda: health()["status"] == "degraded", service)
        assert health()["model_version"] == two
        metrics = api.get("/metrics").text
        assert "\nmodel_ready 1.0\n" in metrics
        assert "\nmodel_degraded 1.0\n" in metrics
        assert 'model_reloads_total{outcome="registry_unavailable"} 0.0' not in metrics
        created = re.search(r"^model_created_timestamp_seconds{.*} (.+)$", metrics, re.MULTILINE)
        assert float(created[1]) == pytest.approx(made_at, abs=1e-3)
    assert service.stop() == 0

    again = start(**options)  # the registry is still down: the last good version serves
    again.ready()
    with again.client() as api:
        assert api.get("/health").json()["model_version"] == two
        until(lambda: api.get("/health").json()["status"] == "degraded", again)
        (tmp_path / "away.db").rename(database)
        until(lambda: api.get("/health").json()["status"] == "healthy", again)
    assert again.stop() == 0


def children_of(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def private_megabytes(pid):
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def test_a_puller_that_dies_is_told_and_replaced(registry, start, made):
    registry.promote(registry.register(made[3]))
    service = start(
        MODEL_URI="models:/mnist-classifier@champion",
        MLFLOW_TRACKING_URI=registry.uri,
        MODEL_POLL_SECONDS="600",
        API_WORKERS="1",
    )
    service.ready()

    (worker,) = {
        line["pid"] for line in service.lines() if line["message"].endswith("is in service")
    }
    with service.client() as api:
        until(lambda: api.get("/health").json()["status"] == "healthy", service)
        (puller,) = set(service.children()) - {worker}
        until(lambda: not children_of(puller), service)
        assert private_megabytes(puller) < 60
        os.kill(puller, signal.SIGKILL)
        reason = "the process that follows the registry died"
        until(lambda: api.get("/health").json()["reason"] == reason, service)
        until(lambda: api.get("/health").json()["status"] == "healthy", service)
        assert 'model_reloads_total{outcome="puller_died"} 1.0' in api.get("/metrics").text


@pytest.mark.slow
@pytest.mark.nightly  # the soak stops a puller too
def test_a_puller_that_hangs_is_told_and_replaced(registry, start, made):
    registry.promote(registry.register(made[3]))
    service = start(
        MODEL_URI="models:/mnist-classifier@champion",
        MLFLOW_TRACKING_URI=registry.uri,
        MODEL_POLL_SECONDS="1",
        PULL_SECONDS="60",
        API_WORKERS="1",
    )
    service.ready()

    def checked():
        found = counters(api.get("/metrics").text)["model_last_check_timestamp_seconds"]
        return next(iter(found.values()), 0)

    with service.client() as api:
        until(lambda: checked() > time.time() - 5, service)
        puller = service.children()[-1]
        os.kill(puller, signal.SIGSTOP)
        stopped = time.time()
        overdue = "the registry is not being checked"
        until(lambda: api.get("/health").json()["reason"] == overdue, service, 300)
        assert "\nmodel_degraded 1.0\n" in api.get("/metrics").text
        until(lambda: puller not in service.children(), service, 300)
        until(lambda: api.get("/health").json()["status"] == "healthy", service, 300)
        assert checked() > stopped
        metrics = api.get("/metrics").text
    assert 'worker_restarts_total{process="puller",reason="hung"} 1.0' in metrics
    assert 'model_reloads_total{outcome="registry_unavailable"} 1.0' in metrics
    assert service.stop() == 0


@pytest.mark.fault(
    "registry that sends a byte each half second",
    "0",
    '`/health`: "a check of the registry did not end in time"',
)
def test_a_registry_that_trickles_is_given_up(start):
    class Trickle(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):  # who asked was killed
                while not over.wait(0.5):
                    self.wfile.write(b" ")

        def log_message(self, *arguments):
            pass

    over = threading.Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), Trickle) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        service = start(
            MODEL_URI="models:/mnist-classifier@champion",
            MLFLOW_TRACKING_URI=f"http://127.0.0.1:{server.server_port}",
            PULL_SECONDS="10",
            API_WORKERS="1",
        )
        reason = "a check of the registry did not end in time"
        with service.client() as api:
            until(lambda: api.get("/health").json()["reason"] == reason, service, 300)
            found = counters(api.get("/metrics").text)
        assert sum(found["worker_restarts_total"].values()) == 1
        assert not found.get("model_last_check_timestamp_seconds")
        assert service.stop() == 0
        over.set()
        server.shutdown()


@pytest.mark.parametrize(
    ("uri", "seconds", "expected"),
    [
        ("models:/mnist-classifier@champion", 60, 180),
        ("models:/mnist-classifier@champion", 0.1, 30),
        ("models:/mnist-classifier@champion", 0, math.inf),
        ("models:/mnist-classifier/1", 60, math.inf),
        ("folder", 60, math.inf),
    ],
)
def test_what_is_polled_must_be_checked_within_three_polls(settings, uri, seconds, expected):
    given = settings(model_uri=uri, model_poll_seconds=seconds)
    assert given.check_seconds(*given.sources) == expected
