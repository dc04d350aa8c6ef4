"""An application on a small real model with a drift reference."""

import shutil

import numpy as np
import pytest
from starlette.testclient import TestClient

from serve.app import create_app
from serve.models import drift_reference
from serve.models.predictor import Predictor
from serve.settings import Settings


@pytest.fixture(scope="session")
def bundle(made, tmp_path_factory):
    """A bundle that always answers 3, with a drift reference."""
    folder = shutil.copytree(made[3], tmp_path_factory.mktemp("docs") / "bundle")
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    taken = drift_reference.build(images, Predictor(folder).probabilities(images))
    np.savez(folder / drift_reference.FILE, **taken._asdict())
    return folder


@pytest.fixture(scope="session")
def client(bundle, tmp_path_factory):
    """A client of an application that ignores the environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name in Settings.model_fields:
            patch.delenv(name.upper(), raising=False)
        settings = Settings(model_uri=str(bundle), state_dir=tmp_path_factory.mktemp("state"))
    with TestClient(create_app(settings), raise_server_exceptions=False) as running:
        yield running
