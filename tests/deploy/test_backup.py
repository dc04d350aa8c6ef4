"""deploy/backup: what runs each day, and that a lost registry comes back from it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.bundles import PNG, picture
from support.manifests import COMPOSE, ROOT
from support.mlflow_registry import NAME, Registry
from support.service_process import Process

from serve.prediction.feedback_store import Entry, FeedbackStore

SERVICES = COMPOSE["services"]
SCRIPT = ROOT / "deploy/backup/backup.sh"
RESTORE = re.search(
    r"## Restore\n.*?```sh\n(.*?)```", (ROOT / "docs/DEPLOY_COMPOSE.md").read_text(), re.S
)[1]


def backed_up(service, folder, **variables):
    """Run what Compose's service runs, once, with its volumes below the folder."""
    assert SERVICES[service]["volumes"][0] == "../deploy/backup:/scripts:ro"
    command = [placed(word, folder) for word in SERVICES[service]["command"]]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    given = {**os.environ, "PATH": path, "PYTHONWARNINGS": "ignore", **variables}
    return subprocess.run(command, env=given, capture_output=True, text=True, check=False)


def placed(text, folder):
    """With the paths of the containers below the folder."""
    text = text.replace("/scripts", str(SCRIPT.parent))
    return re.sub(r"(?<![\w/}])/(?=(backups|mlflow|reports|state)\b)", f"{folder}/", text)


def kept(folder):
    """The names of the whole backups, the oldest first."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def program(folder, name, script):
    """Put a program in front of the one of that name; the PATH to find it by."""
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    return f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"


def run(folder, *paths, **variables):
    command = ["sh", SCRIPT, folder, *paths]
    given = {**os.environ, **variables}
    return subprocess.run(command, env=given, capture_output=True, text=True, check=False)


def test_the_newest_are_kept_and_what_has_another_name(tmp_path):
    backups, source = tmp_path / "backups", tmp_path / "artifacts"
    source.mkdir()
    (source / "model").write_text("1")
    old = [f"202601{day:02}T063000Z" for day in range(1, 9)]
    for name in [*old, "kept-by-hand"]:
        (backups / name).mkdir(parents=True)
    assert run(backups, source, tmp_path / "nothing").returncode == 0
    (new,) = set(kept(backups)) - {*old, "kept-by-hand"}
    assert kept(backups) == [*old[2:], new, "kept-by-hand"]
    assert (backups / new / "artifacts/model").read_text() == "1"
    assert (backups / new).stat().st_mode & 0o077 == 0


def test_what_fails_half_way_is_no_backup_and_costs_none(tmp_path):
    backups, uri = tmp_path / "backups", "postgresql+psycopg2://mlflow@nowhere/mlflow"
    (backups / "20260101T063000Z").mkdir(parents=True)
    path = program(tmp_path, "pg_dump", 'touch "$4"; exit 1')
    failed = run(backups, PATH=path, MLFLOW_BACKEND_STORE_URI=uri, KEEP="1")
    assert failed.returncode == 1
    assert kept(backups) == ["20260101T063000Z"]
    path = program(tmp_path, "pg_dump", 'echo "$5" > "$4"')
    assert run(backups, PATH=path, MLFLOW_BACKEND_STORE_URI=uri, KEEP="1").returncode == 0
    (new,) = kept(backups)
    assert {path.name for path in backups.iterdir()} == {new, ".lock"}
    # As libpq wants it.
    assert (backups / new / "mlflow.dump").read_text() == "postgresql://mlflow@nowhere/mlflow\n"


@pytest.mark.parametrize(("minutes", "made"), [(1439, 0), (1441, 1)])
def test_the_next_is_made_when_the_newest_is_old(tmp_path, minutes, made):
    backups = tmp_path / "backups"
    (backups / "20260101T063000Z").mkdir(parents=True)
    path = program(tmp_path, "sleep", "exit 7")  # ends the loop
    subprocess.run(["touch", "-d", f"-{minutes} minutes", backups / "20260101T063000Z"], check=True)
    every = SERVICES["backup"]["environment"]["EVERY"]
    assert run(backups, PATH=path, EVERY=every).returncode == 7
    assert len(kept(backups)) == 1 + made


def test_feedback_is_copied_and_brought_back_as_documented(tmp_path):
    pages = [ROOT / f"docs/DEPLOY_{name}.md" for name in ("COMPOSE", "KUBERNETES")]
    written = re.findall(
        r'^COPY="(.*)"$', "\n".join(path.read_text() for path in [SCRIPT, *pages]), re.M
    )
    assert len(written) == 3
    (copy,) = set(written)
    state, backups = tmp_path / "state", tmp_path / "backups/feedback"
    state.mkdir()

    def labels(file):
        return [entry.label for entry in FeedbackStore(file).entries()]

    done = backed_up("backup-feedback", tmp_path, EVERY="")
    assert (done.returncode, "feedback.db is not there yet" in done.stdout) == (0, True)
    shutil.rmtree(backups / kept(backups)[0])
    store = FeedbackStore(state / "feedback.db")
    image = np.zeros((28, 28), np.uint8)
    store.add(Entry("a", 3, 3, "1", image))
    assert backed_up("backup-feedback", tmp_path, EVERY="").returncode == 0
    store.add(Entry("b", 4, 3, "1", image))
    copied = backups / kept(backups)[0] / "feedback.db"
    assert (labels(copied), labels(state / "feedback.db")) == ([3], [3, 4])
    command = [sys.executable, "-W", "ignore", "-c", copy, copied, state / "feedback.db"]
    subprocess.run(command, check=True)
    assert labels(state / "feedback.db") == [3]
    store.add(Entry("c", 5, 3, "1", image))
    assert labels(state / "feedback.db") == [3, 5]


def test_both_platforms_are_restored_by_the_same_commands():
    page = (ROOT / "docs/DEPLOY_KUBERNETES.md").read_text()
    for written in (
        r"--command 'DROP SCHEMA public CASCADE' --command 'CREATE SCHEMA public'",
        r"pg_restore --no-owner --single-transaction ",
        r"cp -R /backups/registry/$at/artifacts /mlflow/",
    ):
        assert RESTORE.count(written) == page.count(written) == 1


def restore(mlflow, postgres, folder):
    """Type what DEPLOY_COMPOSE.md says of the registry; each service is this machine."""
    given = {**os.environ, "PGHOST": "127.0.0.1", "PGPORT": str(postgres.port)}
    given["PGPASSWORD"] = "secret"  # pragma: allowlist secret
    for line in RESTORE.replace("\\\n", "").replace("|\n", "|").splitlines():
        match line.split():
            case ["compose", "stop", "mlflow"]:
                mlflow.stop()
            case ["compose", "start", "mlflow"]:
                mlflow.start()
            case _:
                command = re.sub(r"compose exec -T \w+ ", "", placed(line, folder))
                shown = subprocess.run(
                    ["bash", "-ec", f"set -o pipefail; {command}; echo $at"],
                    env=given,
                    check=True,
                    capture_output=True,
                    text=True,
                )
                given["at"] = shown.stdout.strip()


def serve_champion(mlflow, folder):
    """The version and the digest of what a new service serves."""
    folder.mkdir()
    service = Process(
        folder,
        API_WORKERS=1,
        MODEL_POLL_SECONDS="0.2",
        MODEL_URI=SERVICES["digits"]["environment"]["MODEL_URI"],
        MLFLOW_TRACKING_URI=mlflow.uri,
    )
    try:
        service.ready()
        with service.client() as api:
            answer = api.post("/predict", content=picture(), headers=PNG).json()
            digest = re.search(r'model_info\{.*sha256="(\w+)"', api.get("/metrics").text)[1]
            return answer["model_version"], digest
    finally:
        service.stop()


@pytest.mark.slow
@pytest.mark.system("runuser", "util-linux")
@pytest.mark.system("pg_ctlcluster", "postgresql")
def test_a_lost_registry_comes_back(mlflow, postgres, made, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    volume = tmp_path / "mlflow"
    registry = Registry(mlflow.uri)
    registry.register(made[3])
    registry.promote(registry.register(made[3]))
    before = serve_champion(mlflow, tmp_path / "before")
    assert before[0] == "2"

    uri = mlflow.variables["MLFLOW_BACKEND_STORE_URI"]
    done = backed_up("backup", tmp_path, EVERY="", MLFLOW_BACKEND_STORE_URI=uri)
    assert done.returncode == 0, done.stderr
    mlflow.stop()
    postgres.lose()
    shutil.rmtree(volume / "artifacts")
    mlflow.start()
    assert registry.client.search_registered_models() == []

    restore(mlflow, postgres, tmp_path)
    assert registry.client.get_registered_model(NAME).aliases == {"champion": "2"}
    assert serve_champion(mlflow, tmp_path / "after") == before
