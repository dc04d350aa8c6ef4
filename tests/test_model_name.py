"""The registered model has one name: where the service, the pipeline and deployments repeat it."""

import re
from pathlib import Path

import pytest
from support import mlflow_registry

from monitoring import pipeline_exporter
from pipeline.registry import gates
from serve.sources import MODEL_NAME

ROOT = Path(__file__).parents[1]
DEPLOYED = [
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "Dockerfile", *sorted((ROOT / "deploy").rglob("*.y*ml")))
    if "models:/" in path.read_text()
]


def test_python_names_it_alike():
    names = gates.rules("mnist").model, pipeline_exporter.MODEL, mlflow_registry.NAME
    assert set(names) == {MODEL_NAME}


def test_the_image_and_both_deployments_name_it():
    assert {"Dockerfile", "deploy/compose.yaml"} < set(DEPLOYED)
    assert any(path.startswith("deploy/kubernetes") for path in DEPLOYED)


@pytest.mark.parametrize("path", DEPLOYED)
def test_a_deployment_serves_its_champion(path):
    uris = re.findall(r"models:/[a-z-]+@\w+", (ROOT / path).read_text())
    assert set(uris) == {f"models:/{MODEL_NAME}@champion"}
