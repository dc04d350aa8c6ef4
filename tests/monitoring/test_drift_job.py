"""The drift job (`python -m monitoring.drift`) with a real service, and its imports."""

import json
import re
import subprocess
import sys
import time
from contextlib import suppress
from signal import SIGTERM

import grimp
import httpx2
import numpy as np
import pytest
from prometheus_client import generate_latest
from sklearn.datasets import load_digits
from support.alerting import free_port
from support.bundles import write_bundle
from support.html_reader import Reader
from support.service_process import ROOT, Process, until

import monitoring.drift.__main__ as job_module
from bench.drift import symbols
from monitoring.drift.__main__ import DRIFT, FAILED, NO_DRIFT, main
from monitoring.drift.drift_tests import NEEDED
from monitoring.drift.prometheus_gauges import Gauges
from pipeline.data.dataset import Split
from serve.imaging.normalise import normalise
from serve.imaging.placement import centre_digit
from serve.models import drift_reference
from serve.models.predictor import Predictor

INFER = "/v2/models/mnist-classifier/infer"
KEY = {"X-API-Key": "secret"}


@pytest.fixture(scope="module")
def digits():
    """1,797 scanned digits as the service sees them, in no order."""
    greys = (load_digits().images * (255 / 16)).round().astype(np.uint8)
    images = np.stack([normalise(centre_digit(grey)).image for grey in greys])
    return images[np.random.default_rng(0).permutation(len(images))]


@pytest.fixture(scope="module")
def bundle(digit_file, digits, tmp_path_factory):
    """A model that always answers 3, the surer the more ink, with some digits as its reference."""
    folder = write_bundle(tmp_path_factory.mktemp("bundle"), digit_file(3))
    some = digits[:900]
    taken = drift_reference.build(some, Predictor(folder).probabilities(some))
    np.savez(folder / drift_reference.FILE, **taken._asdict())
    return folder


@pytest.fixture
def service(bundle, tmp_path):
    running = Process(tmp_path, MODEL_URI=bundle, API_WORKERS=2, API_KEYS="secret,other")
    running.ready()
    yield running
    assert running.stop() == 0


@pytest.fixture
def job(service, tmp_path, monkeypatch):
    """Checks the service once: exit status and what `drift.json` says."""
    monkeypatch.setenv("API_KEYS", "secret,other")

    def check(*more):
        status = main(["--url", service.url, "--out", str(tmp_path / "report"), *more])
        return status, json.loads((tmp_path / "report/drift.json").read_text())

    return check


def send(service, images):
    with service.client(headers=KEY) as api:
        for part in np.array_split(images, len(images) // 100 + 1):
            tensor = {"name": "image", "datatype": "UINT8", "shape": [*part.shape, 1]}
            tensor["data"] = part.ravel().tolist()
            assert api.post(INFER, json={"inputs": [tensor]}).status_code == 200


def page(tmp_path):
    return (tmp_path / "report/index.html").read_text()


def letters(n):
    split = Split(np.zeros((n, 28, 28), np.uint8), np.zeros(n, np.uint8), np.arange(n))
    return symbols(split, np.random.default_rng(0))


def test_digits_do_not_drift_and_letters_do(service, digits, job, tmp_path):
    status, found = job()
    assert (status, found["images"], found["enough"]) == (NO_DRIFT, 0, False)
    assert "Too few images" in page(tmp_path)

    send(service, digits[900 : 900 + NEEDED - 1])
    status, found = job()
    assert (status, found["images"], found["psi"]) == (NO_DRIFT, NEEDED - 1, {})
    assert "Too few images" in page(tmp_path)

    # Inverted ones come out of the normalisation as the others do.
    send(service, 255 - digits[1_000:1_300])
    status, found = job()
    assert (status, found["drift"]) == (NO_DRIFT, False), found["drifted"]
    assert (found["images"], found["enough"]) == (NEEDED - 1 + 300, True)
    assert len(found["p_values"]) == 10
    assert "No data drift" in page(tmp_path)

    send(service, letters(700))
    status, found = job()
    assert (status, found["drift"]) == (DRIFT, True)
    assert found["images"] == 1_000
    assert "stroke" in found["drifted"]
    assert job("--hours", "1e-9")[1]["images"] == 0
    assert job("--hours", "1")[1]["images"] == 1_000
    assert "differ from the validation images" in page(tmp_path)
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page(tmp_path))
    assert page(tmp_path).count("data:image/png") == 48
    assert "p-value (Holm)" in page(tmp_path)
    heads = Reader(page(tmp_path)).heads
    assert len(heads) == 3 + 6
    assert all(head.strip() for head in heads)


def test_failures_are_logged_and_give_the_exit_status(service, monkeypatch, tmp_path, caplog):
    monkeypatch.delenv("API_KEYS", raising=False)
    out = ["--out", str(tmp_path / "report")]
    assert main(["--url", service.url, *out]) == FAILED
    assert "an API key is needed" in caplog.text
    nobody = f"http://127.0.0.1:{free_port()}"
    assert main(["--url", nobody, *out]) == FAILED
    assert nobody in caplog.text
    assert not (tmp_path / "report").exists()
    with pytest.raises(SystemExit, match="2"):
        main(["--every", "0"])
    with pytest.raises(SystemExit, match="2"):
        main(["--hours", "nan"])


def test_repeated_checks_export_gauges(service, digits, tmp_path):
    port = free_port()
    log = (tmp_path / "drift.log").open("wb")
    began = time.time()
    running = subprocess.Popen(
        [
            *(sys.executable, "-m", "monitoring.drift", "--url", service.url),
            *("--every", "0.3", "--port", str(port), "--out", str(tmp_path / "report")),
        ],
        cwd=ROOT,
        env={"API_KEYS": "secret"},
        stdout=log,
        stderr=log,
    )

    def gauges():
        try:
            text = httpx2.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
        except httpx2.TransportError:
            return {}
        return {
            name: float(value)
            for name, value in re.findall(r"^(drift\S+) (\S+)$", text, re.MULTILINE)
        }

    try:
        until(lambda: gauges().get("drift_last_check_timestamp_seconds", 0) > began)
        first = gauges()
        assert set(first) == {
            *("drift_detected", "drift_window_images", "drift_needed_images"),
            "drift_last_check_timestamp_seconds",
        }
        assert first["drift_needed_images"] == NEEDED
        send(service, digits[900:1_200])
        until(lambda: gauges()["drift_window_images"] == 300)
        found = gauges()
        assert found["drift_detected"] == 0
        assert found["drift_last_check_timestamp_seconds"] > 1.7e9
        assert sum(name.startswith('drift_p_value{test="softmax_') for name in found) == 10
        features = {name for name in found if name.startswith("drift_psi")}
        named = ("ink", "row", "column", "stroke", "confidence", "digit")
        assert features == {f'drift_psi{{feature="{name}"}}' for name in named}
        send(service, letters(700))
        until(lambda: gauges()["drift_detected"] == 1)
    finally:
        running.terminate()
        assert running.wait(30) == 0
        log.close()


def test_it_goes_on_after_a_failed_check_until_it_is_stopped(
    service, digits, tmp_path, monkeypatch
):
    send(service, digits[900:1_200])
    monkeypatch.setenv("API_KEYS", "secret")
    shown, handlers = [], {}

    def write(*_):
        if len(shown) == 2:
            with suppress(SystemExit):  # so it is lost in a callback of the garbage collector
                handlers[SIGTERM]()
        raise OSError("the disk is full")

    monkeypatch.setattr(job_module.report, "write", write)
    monkeypatch.setattr(job_module, "start_http_server", lambda *_, **__: None)
    monkeypatch.setattr(Gauges, "show", lambda _, findings: shown.append(findings.images))
    monkeypatch.setattr(job_module.signal, "signal", handlers.__setitem__)
    out = str(tmp_path / "report")
    assert main(["--url", service.url, "--every", "0.01", "--out", out]) == NO_DRIFT
    assert shown == [300, 300]


def test_a_new_job_counts_as_checked_now():
    began = time.time()
    text = generate_latest(Gauges().registry).decode()
    (checked,) = re.findall(r"^drift_last_check_timestamp_seconds (\S+)$", text, re.MULTILINE)
    assert began <= float(checked) <= time.time()


def test_the_job_needs_little_of_the_service_and_the_pipeline():
    graph = grimp.build_graph("monitoring", "pipeline", "serve", exclude_type_checking_imports=True)
    job = graph.find_descendants("monitoring.drift")
    used = {
        module
        for each in job
        for module in graph.find_modules_directly_imported_by(each)
        if not module.startswith("monitoring.drift")
    }
    # Pages look alike and correct p-values alike; what a reference is, is said once.
    assert used == {
        "pipeline.evaluation.significance",
        "pipeline.storage.files",
        "pipeline.reports.theme",
        "serve.models.drift_reference",
        "serve.imaging.normalise",
    }
