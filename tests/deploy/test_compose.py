"""deploy/compose.yaml: its form, what it promises, and its processes started as it starts them."""

import re
import shutil
import subprocess
from urllib.parse import urlsplit

import httpx2
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.server import app
from support.bundles import PNG, picture
from support.manifests import COMPOSE, IMAGES, ROOT, VERSION, follows, succeeds
from support.mlflow_registry import NAME, Registry
from support.service_process import Process

from monitoring.drift.__main__ import parse_options as drift_options
from pipeline.retrain import _options as retrain_options
from serve.settings import Settings

FILE = ROOT / "deploy" / "compose.yaml"
SERVICES = COMPOSE["services"]
LOCKED = (ROOT / "requirements" / "dev.txt").read_text()
PUBLISHED = {"digits", "mlflow", "grafana"}  # the service's port and the dashboards'


def test_it_has_the_form_of_a_compose_file():
    follows("--builtin-schema", "vendor.compose-spec", FILE)


@pytest.mark.parametrize("name", SERVICES)
def test_each_is_confined(name):
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is (name not in ("trainer", "retrain"))
    assert service.get("mem_limit") or name == "volumes-owner"
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
    for name in ("mlflow", "volumes-owner"):
        assert SERVICES[name]["image"] == f"ghcr.io/mlflow/mlflow:v{locked}-full"


def test_only_the_service_and_the_dashboards_are_reached_and_from_this_machine_alone():
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(ports) == PUBLISHED
    for published in ports.values():
        assert all(port.startswith("127.0.0.1:") for port in published)
    assert COMPOSE["networks"]["back"]["internal"] is True
    assert COMPOSE["networks"]["database"]["internal"] is True
    assert SERVICES["postgres"]["networks"] == ["database"]


def test_the_service_shares_no_network_with_what_it_might_write_to():
    shared = {
        name
        for name, service in SERVICES.items()
        if set(service.get("networks", [])) & set(SERVICES["digits"]["networks"])
    }
    assert "mlflow-read" in shared
    assert not shared & {"mlflow", "postgres"}


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


def test_prometheus_asks_blackbox_exporter_to_ask_the_service():
    scraped = yaml.safe_load((ROOT / "monitoring/prometheus/prometheus.yml").read_text())
    (job,) = (job for job in scraped["scrape_configs"] if job["job_name"] == "probe")
    (target,) = map(urlsplit, job["static_configs"][0]["targets"])
    port = Settings.model_fields["api_port"].default
    assert (target.hostname, target.port) == ("digits", port)
    replacement = job["relabel_configs"][-1]["replacement"].partition(":")[0]
    assert set(SERVICES[replacement]["networks"]) & set(SERVICES["prometheus"]["networks"])
    assert "front" in SERVICES[replacement]["networks"]  # the callers' address may be outside


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


def test_alertmanager_reads_the_addresses_of_its_receivers():
    configured = yaml.safe_load((ROOT / "monitoring/alertmanager/alertmanager.yml").read_text())
    hooks = [hook for receiver in configured["receivers"] for hook in receiver["webhook_configs"]]
    secrets = SERVICES["alertmanager"]["secrets"]
    assert [hook["url_file"] for hook in hooks] == [f"/run/secrets/{name}" for name in secrets]
    sources = [COMPOSE["secrets"][name]["file"] for name in secrets]
    read = [re.fullmatch(r"\$\{(\w+):-(.*)\}", source).groups() for source in sources]
    assert [variable for variable, _ in read] == ["ALERT_WEBHOOK_FILE", "WATCHDOG_WEBHOOK_FILE"]
    assert all((FILE.parent / default).read_text().startswith("http") for _, default in read)
    version = SERVICES["alertmanager"]["image"].rpartition(":v")[2]
    assert tuple(map(int, version.split("."))) >= (0, 26, 0)  # the first that knows url_file
    assert "--enable-feature=receiver-name-in-metrics" in SERVICES["alertmanager"]["command"]
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


def status(uri, host):
    """What MLflow answers to a request of its registry under that name."""
    path = "/api/2.0/mlflow/registered-models/search"
    return httpx2.get(f"{uri}{path}", headers={"Host": host}).status_code


@pytest.mark.slow
@pytest.mark.system("runuser", "util-linux")
@pytest.mark.system("pg_ctlcluster", "postgresql")
@pytest.mark.system("nginx", "nginx")
def test_its_processes_register_and_serve_together_and_the_service_only_reads(
    mlflow, mlflow_read, made, tmp_path, monkeypatch
):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    registry = Registry(mlflow.uri)
    given = {
        name: value for name, value in SERVICES["digits"]["environment"].items() if "$" not in value
    }
    called = urlsplit(given["MLFLOW_TRACKING_URI"]).netloc
    assert called == "mlflow-read:5001"
    given["MLFLOW_TRACKING_URI"] = mlflow_read
    assert (status(mlflow_read, called), status(mlflow_read, "mlflow.example.com")) == (200, 403)
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
    check_nothing_can_be_written(registry, mlflow_read, made[8])


def check_nothing_can_be_written(registry, uri, bundle):
    """Neither by MLflow's client nor by any route of MLflow that takes more than GET."""
    client, name = MlflowClient(uri, uri), NAME
    run = registry.client.search_runs([registry.experiment])[0].info.run_id
    for write in (
        lambda: client.create_registered_model("mine"),
        lambda: client.create_model_version(name, "mlflow-artifacts:/1/a", run),
        lambda: client.set_registered_model_alias(name, "champion", "1"),
        lambda: client.delete_registered_model_alias(name, "champion"),
        lambda: client.set_model_version_tag(name, "1", "bundle.digest", "0"),
        lambda: client.delete_model_version(name, "1"),
        lambda: client.delete_registered_model(name),
    ):
        with pytest.raises(MlflowException, match="403"):
            write()
    with httpx2.Client(base_url=uri) as api:
        artifact = f"/api/2.0/mlflow-artifacts/artifacts/{registry.experiment}/{run}/artifacts/x"
        answers = [api.put(artifact, content=b"x"), api.delete(artifact), api.get("/graphql")]
        paths = {rule.rule for rule in app.url_map.iter_rules()}
        assert len(paths) > 100
        for path in paths:
            answers += [api.request(method, path) for method in ("POST", "PUT", "PATCH", "DELETE")]
    assert {answer.status_code for answer in answers} == {403}
    assert registry.client.get_registered_model(name).aliases == {"champion": "1"}
    assert len(registry.client.search_model_versions(f"name='{name}'")) == 1
