"""A small real model with a drift reference."""

import shutil

import numpy as np
import pytest

from serve.models import drift_reference
from serve.models.predictor import Predictor


@pytest.fixture(scope="session")
def bundle(made, tmp_path_factory):
    """A bundle that always answers 3, with a drift reference."""
    folder = shutil.copytree(made[3], tmp_path_factory.mktemp("docs") / "bundle")
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    taken = drift_reference.build(images, Predictor(folder).probabilities(images))
    np.savez(folder / drift_reference.FILE, **taken._asdict())
    return folder
