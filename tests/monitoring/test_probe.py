"""The probe from outside: Prometheus and blackbox exporter with the repository's files."""

import pytest
import yaml
from support.alerting import Program, blackbox, free_port
from support.service_process import ROOT, Process, until

FILE = ROOT / "monitoring/prometheus/prometheus.yml"
(JOB,) = (
    job for job in yaml.safe_load(FILE.read_text())["scrape_configs"] if job["job_name"] == "probe"
)
EXPORTER, PATH = "blackbox:9115", "/health/ready"


@pytest.fixture
def exporter(tmp_path):
    running = blackbox(tmp_path)
    yield running
    running.stop()


def watching(folder, exporter, address):
    """Start Prometheus with the job of the repository, for that exporter and address."""
    (target,) = JOB["static_configs"][0]["targets"]
    assert target == f"http://digits:8000{PATH}"
    text = yaml.safe_dump(JOB).replace(EXPORTER, f"127.0.0.1:{exporter.port}")
    job = yaml.safe_load(text.replace(target, address)) | {"scrape_interval": "1s"}
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump({"scrape_configs": [job]}))
    options = f"--config.file={file}", f"--storage.tsdb.path={folder / 'series'}"
    return Program(folder, "prometheus", *options)


def found(prometheus, query):
    """Return the labels and the value of the one series, or None."""
    result = prometheus.get("/api/v1/query", query=query).json()["data"]["result"]
    return (result[0]["metric"], result[0]["value"][1]) if result else None


@pytest.mark.system("prometheus", "prometheus")
@pytest.mark.system("prometheus-blackbox-exporter", "prometheus-blackbox-exporter")
def test_it_succeeds_while_the_service_can_predict(tmp_path, exporter, made):
    port, empty = free_port(), tmp_path / "empty"
    empty.mkdir()
    address = f"http://127.0.0.1:{port}{PATH}"
    prometheus = watching(tmp_path, exporter, address)
    labels = {"__name__": "probe_success", "job": "probe", "instance": address}

    def says(value, status):
        query = f"probe_success and probe_http_status_code == {status}"
        until(lambda: found(prometheus, query) == (labels, value), prometheus)

    try:
        for bundle, value, status in ((made[3], "1", 200), (empty, "0", 503)):
            says("0", 0)  # nobody listens
            service = Process(tmp_path, API_PORT=port, API_WORKERS=1, MODEL_URI=bundle)
            says(value, status)
            assert service.stop() == 0
        says("0", 0)
        assert found(prometheus, "up")[1] == "1"  # the exporter's
    finally:
        prometheus.stop()
