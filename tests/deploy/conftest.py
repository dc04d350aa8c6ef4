"""Processes of Compose, started with its commands and variables, without containers."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support.alerting import free_port
from support.manifests import COMPOSE, ROOT, succeeds
from support.mlflow_registry import await_server

SERVICES = COMPOSE["services"]


class Postgres:
    """A PostgreSQL of this test's own, with the user and an empty database of Compose."""

    def __init__(self):
        given = SERVICES["postgres"]["environment"]
        self.user, self.database = given["POSTGRES_USER"], given["POSTGRES_DB"]
        # Not below pytest's own folder, which each start of pytest closes to the user `postgres`.
        self.folder, self.port = Path(tempfile.mkdtemp(prefix="postgres-")), free_port()
        shutil.chown(self.folder, "postgres")
        # Over the network a password counts, as in the image.
        methods = ("--auth-local", "trust", "--auth-host", "scram-sha-256")
        self._run("initdb", "--pgdata", self._data, *methods, "--username", "postgres")
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder}"
        log = self.folder / "log"
        self._run(
            "pg_ctl", "--pgdata", self._data, "--options", options, "--log", log, "-w", "start"
        )
        self.ask(f"CREATE USER {self.user} PASSWORD 'secret'")
        self.create()

    @property
    def _data(self):
        return self.folder / "data"

    def _run(self, program, *arguments):
        home = max(Path("/usr/lib/postgresql").iterdir()) / "bin"
        succeeds("runuser", "-u", "postgres", "--", home / program, *arguments)

    def ask(self, statement):
        connected = ("--host", self.folder, "--port", str(self.port), "--username", "postgres")
        self._run("psql", *connected, "-c", statement)

    def create(self):
        self.ask(f"CREATE DATABASE {self.database} OWNER {self.user}")

    def lose(self):
        """Lose the database; the image makes an empty one on an empty volume."""
        self.ask(f"DROP DATABASE {self.database} WITH (FORCE)")
        self.create()

    def stop(self):
        self._run("pg_ctl", "--pgdata", self._data, "-m", "fast", "stop")
        shutil.rmtree(self.folder)


class Mlflow:
    """MLflow's server at `uri`, with the command and the variables of Compose."""

    def __init__(self, postgres, folder):
        self._service, self._port, self._log = (
            SERVICES["mlflow"],
            free_port(),
            folder / "mlflow.log",
        )
        self.uri = f"http://127.0.0.1:{self._port}"
        self.variables = {
            name: value.replace("${POSTGRES_PASSWORD:?make env}", "secret")
            .replace("postgres:5432", f"127.0.0.1:{postgres.port}")
            .replace("/mlflow/", f"{folder}/mlflow/")
            for name, value in self._service["environment"].items()
        }
        self.start()

    def start(self):
        given = self._service["command"]
        command = ["127.0.0.1" if word == "0.0.0.0" else word for word in given]  # noqa: S104
        command[command.index("5000")] = str(self._port)
        environment = {**os.environ, **self.variables}
        for name in ("PYTHONWARNINGS", "MLFLOW_TRACKING_URI"):
            environment.pop(name, None)
        with self._log.open("ab") as log:
            self._server = subprocess.Popen(
                [sys.executable, "-m", *command],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        await_server(self.uri)

    def stop(self):
        os.killpg(self._server.pid, 9)
        self._server.wait()


@pytest.fixture
def postgres():
    server = Postgres()
    yield server
    server.stop()


@pytest.fixture
def mlflow(postgres, tmp_path):
    server = Mlflow(postgres, tmp_path)
    yield server
    server.stop()


@pytest.fixture
def mlflow_read(mlflow, tmp_path):
    """The address of the way to MLflow that only reads."""
    service, port = SERVICES["mlflow-read"], free_port()
    assert service["volumes"] == ["../deploy/registry:/etc/mlflow-read:ro"]
    configuration = (ROOT / "deploy/registry/nginx.conf").read_text()
    listening = configuration.replace("listen 5001", f"listen 127.0.0.1:{port}")
    (tmp_path / "nginx.conf.template").write_text(listening.replace("/tmp/", f"{tmp_path}/"))  # noqa: S108
    command = [
        word.replace("$$", "$")
        .replace("/etc/mlflow-read/nginx.conf", f"{tmp_path}/nginx.conf.template")
        .replace("/tmp/nginx.conf", f"{tmp_path}/nginx.conf")  # noqa: S108
        for word in service["command"]
    ]
    given = {**os.environ, "MLFLOW": mlflow.uri.removeprefix("http://")}
    server = subprocess.Popen(command, env=given)
    await_server(f"http://127.0.0.1:{port}")
    yield f"http://127.0.0.1:{port}"
    server.terminate()
    server.wait()
