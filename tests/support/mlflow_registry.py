"""A registry with versions of made-up bundles in it, registered as the pipeline does."""

import os
import subprocess
import sys
import time

import mlflow
from mlflow import MlflowClient

from support.service_process import until

NAME = "mnist-classifier"


class Registry:
    """Versions of a registered model, by default NAME, in the MLflow store at `uri`."""

    def __init__(self, uri, artifacts=None, name=NAME):
        self.uri, self.artifacts, self.name = uri, artifacts, name
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        self.client = MlflowClient()
        self.experiment = self.client.create_experiment(
            "mnist" if name == NAME else name, artifacts
        )
        self.client.create_registered_model(name)

    def register(self, bundle, **tags):
        """The number of a new version."""
        run = self.client.create_run(self.experiment)
        self.client.log_artifacts(run.info.run_id, str(bundle), "champion")
        source = f"{run.info.artifact_uri}/champion"
        made = self.client.create_model_version(self.name, source, run.info.run_id, tags=tags)
        self.client.set_terminated(run.info.run_id)
        return str(made.version)

    def promote(self, version):
        self.client.set_registered_model_alias(self.name, "champion", version)


def server(folder, port):
    """A real MLflow server on a database and proxied artifacts in the folder."""
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment.pop("PYTHONWARNINGS", None)
    with (folder / "mlflow.log").open("ab") as log:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "mlflow", "server"),
                *("--backend-store-uri", f"sqlite:///{folder}/server.db"),
                *("--artifacts-destination", str(folder / "served"), "--serve-artifacts"),
                *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
            ],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def await_server(uri):
    import requests

    def answers():
        try:
            return requests.get(f"{uri}/health", timeout=2).ok
        except requests.RequestException:
            time.sleep(0.2)
            return False

    until(answers, seconds=300)
