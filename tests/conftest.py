"""What every test may use."""

import os
import shutil
import signal

import pytest
from hydra import compose, initialize_config_dir

from pipeline import config, determinism


def pytest_configure():
    """Tests interrupt programs; one that runs in a shell's background ignores that, and its own."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item):
    """Skips a `system` test whose program is missing, naming its package; in CI it fails."""
    for marker in item.iter_markers("system"):
        program, package = marker.args
        if shutil.which(program) is None:
            missing = f"needs {program}: apt-get install {package}, or make system"
            if os.environ.get("CI"):
                pytest.fail(missing)
            pytest.skip(missing)


@pytest.fixture(scope="session")
def configured():
    """Composes the real configuration of a run, with overrides that make it small."""

    def compose_run(run=1, *overrides):
        config.register_schema()
        picks = ["seed=42", "threads=2", "runs=[1,2,3]", f"run='{run}'"]
        with initialize_config_dir(str(config.CONF), version_base="1.3"):
            return config.resolved(compose("config", [*picks, *overrides]), str(run))

    return compose_run


@pytest.fixture(scope="session")
def tensorflow():
    """TensorFlow as `train` starts it; before any other use of it in the process."""
    determinism.start(seed=42, threads=2)
    import tensorflow as tf

    return tf
