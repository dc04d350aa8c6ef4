"""deploy/compose.yaml: its form, what it promises, and its processes started as it starts them."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import numpy as np
import pytest
import yaml
from support.alerting import free_port
from support.bundles import PNG, picture
from support.manifests import IMAGES, ROOT, VERSION, succeeds, tool
from support.mlflow_registry import NAME, Registry, await_server
from support.service_process import Process

from monitoring.drift.__main__ import parse_options as drift_options
from pipeline.retrain import _options as retrain_options
from serve.prediction.feedback_store import Entry, FeedbackStore
from serve.settings import Settings

FILE = ROOT / "deploy" / "compose.yaml"
COMPOSE = yaml.safe_load(FILE.read_text())
SERVICES = COMPOSE["services"]
LOCKED = (ROOT / "requirements" / "dev.txt").read_text()
PUBLISHED = {"digits", "mlflow", "grafana"}  # the service's port and the dashboards'


def test_it_has_the_form_of_a_compose_file():
    succeeds(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", FILE)


@pytest.mark.parametrize("name", SERVICES)
def test_each_is_confined(name):
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is (name not in ("trainer", "retrain"))
    assert service.get("mem_limit") or name == "artifacts-owner"
    assert "privileged" not in service
    assert service["logging"]["options"]["max-size"]


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_ours_or_pinned(name):
    image, _, tag = SERVICES[name]["image"].rpartition(":")
    if image in IMAGES:
        assert tag == VERSION
        builders = [s for s in SERVICES.values() if s["image"] == f"{image}:{tag}" and "build" in s]
        assert all(s["build"] == builders[0]["build"] for s in builders)
        assert builders[0]["build"]["context"] == ".."
        assert builders[0]["build"]["args"] == {"VERSION": VERSION, "COMMIT": "${COMMIT:-unknown}"}
        with_it = [None, *SERVICES[name].get("profiles", [])]  # what is started whenever this is
        assert any(p in with_it for s in builders for p in s.get("profiles", [None]))
    else:
        assert re.fullmatch(r"v?\d+\.\d+(\.\d+)?(-[a-z]+)?", tag)


def test_mlflow_is_the_version_that_is_tested():
    locked = re.search(r"^mlflow==([\d.]+)", LOCKED, re.M)[1]
    for name in ("mlflow", "artifacts-owner"):
        assert SERVICES[name]["image"] == f"ghcr.io/mlflow/mlflow:v{locked}-full"


def test_only_the_service_and_the_dashboards_are_reached_and_from_this_machine_alone():
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(ports) == PUBLISHED
    for published in ports.values():
        assert all(port.startswith("127.0.0.1:") for port in published)
    assert COMPOSE["networks"]["back"]["internal"] is True
    assert SERVICES["postgres"]["networks"] == ["back"]


def test_no_password_has_a_default():
    text = FILE.read_text()
    asked = re.findall(r"\$\{(\w*PASSWORD\w*)(.*?)\}", text)
    assert {name for name, _ in asked} == {"POSTGRES_PASSWORD", "GRAFANA_PASSWORD"}
    assert {rest for _, rest in asked} == {":?make env"}
    assert not re.search(r"PASSWORD: +[^$\s]", text)


def test_the_drift_job_asks_the_service_and_prometheus_asks_it():
    command = SERVICES["drift"]["command"]
    assert command[:3] == ["python", "-m", "monitoring.drift"]
    chosen = drift_options(command[3:])
    port = Settings.model_fields["api_port"].default
    assert (chosen.url, chosen.every) == ([f"http://digits:{port}"], 300)
    assert f"drift:{chosen.out}" in SERVICES["drift"]["volumes"]
    scraped = yaml.safe_load((ROOT / "monitoring/prometheus/prometheus.yml").read_text())
    (job,) = (job for job in scraped["scrape_configs"] if job["job_name"] == "drift")
    assert job["static_configs"] == [{"targets": [f"drift:{chosen.port}"]}]


def test_retraining_has_drift_and_feedback_for_reasons():
    service = SERVICES["retrain"]
    assert service["command"][:2] == ["sh", "-c"]
    drift, retrain = re.fullmatch(
        r"\{ python -m monitoring\.drift (.*) \|\| \[ \$\$\? = 3 \]; \} "
        r"&& exec python -m pipeline\.retrain (.*)",
        service["command"][2],
    ).groups()
    asked, options = drift_options(drift.split()), retrain_options(retrain.split())
    assert (asked.url, asked.every) == (drift_options(SERVICES["drift"]["command"][3:]).url, None)
    assert options.drift == asked.out / "drift.json"
    (feedback,) = options.feedback
    assert f"state:{feedback.parent}:ro" in service["volumes"]
    assert f"state:{feedback.parent}" in SERVICES["digits"]["volumes"]
    assert set(SERVICES["trainer"]["volumes"]) < set(service["volumes"])
    assert service["environment"]["API_KEYS"] == SERVICES["digits"]["environment"]["API_KEYS"]


@pytest.mark.parametrize(("status", "goes_on"), [(0, True), (1, False), (3, True)])
def test_only_a_check_that_failed_stops_retraining(tmp_path, status, goes_on):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ "$2" = pipeline.retrain ] && echo trains || exit {status}\n')
    python.chmod(0o755)
    command = [word.replace("$$", "$") for word in SERVICES["retrain"]["command"]]
    given = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=False)
    assert (done.stdout == "trains\n", done.returncode == 0) == (goes_on, goes_on)


def test_the_services_variables_are_known_to_it():
    fields = {name.upper() for name in Settings.model_fields}
    assert set(SERVICES["digits"]["environment"]) <= fields


def test_each_that_is_waited_for_says_when_it_is_there():
    for name, service in SERVICES.items():
        for other, wait in service.get("depends_on", {}).items():
            if wait["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other], (name, other)


def test_whatever_keeps_data_keeps_it_in_a_named_volume():
    used = {
        volume.partition(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", [])
        if not volume.startswith("..")
    }
    assert used == set(COMPOSE["volumes"])


def test_what_is_mounted_from_the_repository_is_there_and_cannot_be_written():
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source, *_, mode = volume.split(":")
            if source.startswith(".."):
                assert (FILE.parent / source).is_dir(), source
                assert mode == "ro"


def test_alertmanager_reads_the_address_of_the_receiver():
    configured = yaml.safe_load((ROOT / "monitoring/alertmanager/alertmanager.yml").read_text())
    (receiver,) = configured["receivers"][0]["webhook_configs"]
    (secret,) = SERVICES["alertmanager"]["secrets"]
    assert receiver["url_file"] == f"/run/secrets/{secret}"
    source = COMPOSE["secrets"][secret]["file"]
    variable, default = re.fullmatch(r"\$\{(\w+):-(.*)\}", source).groups()
    assert variable == "ALERT_WEBHOOK_FILE"
    assert (FILE.parent / default).read_text().startswith("http")
    version = SERVICES["alertmanager"]["image"].rpartition(":v")[2]
    assert tuple(map(int, version.split("."))) >= (0, 26, 0)  # the first that knows url_file
    assert "front" in SERVICES["alertmanager"]["networks"]


def test_passwords_are_made_once(tmp_path):
    (tmp_path / "deploy").mkdir()
    shutil.copy2(ROOT / "deploy" / "env.sh", tmp_path / "deploy")
    script = str(tmp_path / "deploy" / "env.sh")
    succeeds(script)
    first = (tmp_path / ".env").read_text()
    values = dict(re.findall(r"^(\w+)=(.*)$", first, re.M))
    assert len({values["POSTGRES_PASSWORD"], values["GRAFANA_PASSWORD"]}) == 2
    assert all(len(values[f"{name}_PASSWORD"]) >= 32 for name in ("POSTGRES", "GRAFANA"))
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0
    succeeds(script)
    assert (tmp_path / ".env").read_text() == first


def test_feedback_is_copied_and_brought_back_as_documented(tmp_path):
    pages = (ROOT / f"docs/DEPLOY_{name}.md" for name in ("COMPOSE", "KUBERNETES"))
    written = [
        copy for page in pages for copy in re.findall(r'^COPY="(.*)"$', page.read_text(), re.M)
    ]
    assert len(written) == 2
    (copy,) = set(written)

    def run(source, target):
        command = [sys.executable, "-W", "ignore", "-c", copy, tmp_path / source, tmp_path / target]
        return subprocess.run(command, capture_output=True, check=False).returncode

    def labels(name):
        return [entry.label for entry in FeedbackStore(tmp_path / name).entries()]

    assert run("feedback.db", "copy.db") == 1  # none yet: nothing is made
    assert not (tmp_path / "feedback.db").exists()
    kept = FeedbackStore(tmp_path / "feedback.db")
    image = np.zeros((28, 28), np.uint8)
    kept.add(Entry("a", 3, 3, "1", image))
    assert run("feedback.db", "copy.db") == 0
    kept.add(Entry("b", 4, 3, "1", image))
    assert (labels("copy.db"), labels("feedback.db")) == ([3], [3, 4])
    assert run("copy.db", "feedback.db") == 0
    assert labels("feedback.db") == [3]
    kept.add(Entry("c", 5, 3, "1", image))
    assert labels("feedback.db") == [3, 5]


@pytest.fixture
def postgres():
    """The address of a PostgreSQL of this test's own, with the user and database of Compose."""
    given = SERVICES["postgres"]["environment"]
    # Not below pytest's own folder, which each start of pytest closes to the user `postgres`.
    folder, port = Path(tempfile.mkdtemp(prefix="postgres-")), free_port()
    shutil.chown(folder, "postgres")
    home = max(Path("/usr/lib/postgresql").iterdir()) / "bin"

    def run(program, *arguments):
        succeeds("runuser", "-u", "postgres", "--", home / program, *arguments)

    # Over the network a password counts, as in the image.
    methods = ("--auth-local", "trust", "--auth-host", "scram-sha-256")
    run("initdb", "--pgdata", folder / "data", *methods, "--username", "postgres")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder}"
    log = folder / "log"
    run("pg_ctl", "--pgdata", folder / "data", "--options", options, "--log", log, "-w", "start")
    ask = ["psql", "--host", folder, "--port", str(port), "--username", "postgres", "-c"]
    user, database = given["POSTGRES_USER"], given["POSTGRES_DB"]
    run(*ask, f"CREATE USER {user} PASSWORD 'secret'")
    run(*ask, f"CREATE DATABASE {database} OWNER {user}")
    yield f"127.0.0.1:{port}"
    run("pg_ctl", "--pgdata", folder / "data", "-m", "fast", "stop")
    shutil.rmtree(folder)


@pytest.fixture
def mlflow(postgres, tmp_path):
    """The address of MLflow's server, with the command and the variables of Compose."""
    service, port = SERVICES["mlflow"], free_port()
    given = {
        name: value.replace("${POSTGRES_PASSWORD:?make env}", "secret")
        .replace("postgres:5432", postgres)
        .replace("/mlflow/", f"{tmp_path}/")
        for name, value in service["environment"].items()
    }
    command = ["127.0.0.1" if word == "0.0.0.0" else word for word in service["command"]]  # noqa: S104
    command[command.index("5000")] = str(port)
    environment = {**os.environ, **given}
    for name in ("PYTHONWARNINGS", "MLFLOW_TRACKING_URI"):
        environment.pop(name, None)
    with (tmp_path / "mlflow.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", *command],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    uri = f"http://127.0.0.1:{port}"
    await_server(uri)
    yield uri
    os.killpg(server.pid, 9)
    server.wait()


def status(uri, host):
    """What MLflow answers to a request of its registry under that name."""
    path = "/api/2.0/mlflow/registered-models/search"
    return httpx2.get(f"{uri}{path}", headers={"Host": host}).status_code


@pytest.mark.slow
@pytest.mark.system("runuser", "util-linux")
@pytest.mark.system("pg_ctlcluster", "postgresql")
def test_its_processes_log_register_and_serve_together(
    mlflow, postgres, made, tmp_path, monkeypatch
):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    registry = Registry(mlflow)
    given = {
        name: value for name, value in SERVICES["digits"]["environment"].items() if "$" not in value
    }
    given["MLFLOW_TRACKING_URI"] = given["MLFLOW_TRACKING_URI"].replace(
        "http://mlflow:5000", mlflow
    )
    called = urlsplit(SERVICES["digits"]["environment"]["MLFLOW_TRACKING_URI"]).netloc
    assert (status(mlflow, called), status(mlflow, "mlflow.example.com")) == (200, 403)
    service = Process(tmp_path, API_WORKERS=1, MODEL_POLL_SECONDS="0.2", **given)
    try:
        with service.client() as api:
            health = api.get("/health")
            assert (health.status_code, health.json()["model_loaded"]) == (503, False)
            version = registry.register(made[3])
            registry.promote(version)
            service.ready()
            answer = api.post("/predict", content=picture(), headers=PNG).json()
            assert (answer["prediction"], answer["model_version"]) == (3, version)
    finally:
        assert service.stop() == 0
    check_backup(registry, postgres, tmp_path)


def check_backup(registry, postgres, folder):
    """That the documented commands bring back what the registry had."""
    text = (ROOT / "docs/DEPLOY_COMPOSE.md").read_text()
    host, port = postgres.split(":")
    given = {**os.environ, "PGHOST": host, "PGPORT": port}
    given["PGPASSWORD"] = "secret"  # pragma: allowlist secret

    def typed(pattern):
        (command,) = re.findall(rf"^compose exec -T postgres ({pattern})$", text, re.M)
        subprocess.run(["sh", "-ec", command], cwd=folder, env=given, check=True, timeout=60)

    typed("pg_dump .* > mlflow.sql")
    registry.client.delete_registered_model_alias(NAME, "champion")
    assert not registry.client.get_registered_model(NAME).aliases
    typed("psql .* < mlflow.sql")
    assert registry.client.get_registered_model(NAME).aliases == {"champion": "1"}
