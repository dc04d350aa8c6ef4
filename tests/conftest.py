"""What every test may use."""

import gc
import os
import shutil
import signal
import string

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image
from support.bundles import COLOURS, write_bundle, write_labelled
from support.litert_file import litert_file

from docs.tools import recorded, tables
from pipeline import config
from pipeline.training import determinism

# Each collection of garbage goes through all that TensorFlow and MLflow have made: as Python does
# it by itself, that was a sixth of the tests' processor time.
gc.set_threshold(100_000, 50, 100)

PIXELS = Image.MAX_IMAGE_PIXELS


def pytest_configure():
    """Tests interrupt programs; one that runs in a shell's background ignores that, and its own."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """One more process than cores, because most tests wait for others; from four on, four."""
    return min(4, (os.cpu_count() or 1) + 1)


def pytest_collection_modifyitems(items):
    """Files with slow tests first, so that no process is left with a long one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter):
    """With RECORD=--record, `pytest -m fault` writes the table of faults once all of it passed."""
    stats = terminalreporter.stats
    passed = [dict(report.user_properties) for report in stats.get("passed", [])]
    rows = dict.fromkeys(found["fault"] for found in passed if "fault" in found)
    if os.environ.get("RECORD") and rows and not {"failed", "error"} & set(stats):
        command = "RECORD=--record python -m pytest -m fault"
        columns = ["fault", "lost", "what is said", "test"]
        table = tables.Table(command, recorded.machine(), columns, [[*row] for row in rows])
        tables.write("faults-of-requests", table)


def pytest_runtest_setup(item):
    """Notes the fault of a test; skips one whose program is missing (in CI it fails).

    Lifts the limit that the service sets for its process: stages are processes of their own.
    """
    Image.MAX_IMAGE_PIXELS = PIXELS
    for marker in item.iter_markers("fault"):
        file = item.path.relative_to(item.config.rootpath)
        item.user_properties.append(("fault", (*marker.args, f"`{file}`")))
    for marker in item.iter_markers("system"):
        program, package = marker.args
        if shutil.which(program) is None:
            missing = f"needs {program}: apt-get install {package}, or make system"
            if os.environ.get("CI"):
                pytest.fail(missing)
            pytest.skip(missing)


@pytest.fixture(scope="module", autouse=True)
def _no_store_of_other_tests():
    """MLflow tells the environment its store; what starts in a later module would inherit it."""
    yield
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        os.environ.pop(name, None)


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
    """TensorFlow as `train` starts it for any precision; before any other use in the process."""
    determinism.start(seed=42, threads=2, precision="mixed_bfloat16")
    import tensorflow as tf

    return tf


@pytest.fixture(scope="session")
def digit_file(tensorflow):
    """Makes a real LiteRT file that always answers `digit`, the surer the brighter the image."""

    def make(digit):
        weights = np.zeros((28 * 28, 10), np.float32)
        weights[:, digit] = 1 / 5000
        return litert_file(tensorflow, lambda pixels: pixels @ tensorflow.constant(weights))

    return make


@pytest.fixture(scope="session")
def brightness(tensorflow):
    """A real LiteRT file of a likelihood: the mean of the pixels, 1 if half of them are white."""
    mean = tensorflow.reduce_mean
    return litert_file(
        tensorflow,
        lambda pixels: tensorflow.minimum(mean(pixels, axis=1, keepdims=True) / 127.5, 1.0),
    )


@pytest.fixture(scope="session")
def colours(tensorflow, tmp_path_factory):
    """A bundle of five text classes that reads 32x32 in colour: the colour nearest to the mean."""
    tf = tensorflow
    known = tf.constant(list(COLOURS.values()), tf.float32) / 25

    def answer(pixels):
        mean = tf.reduce_mean(pixels, axis=1)[:, None] / 25
        return -tf.reduce_sum((mean - known) ** 2, axis=2)

    content = litert_file(tf, answer, (32, 32, 3))
    folder = tmp_path_factory.mktemp("bundles") / "colours"
    return write_labelled(folder, content, COLOURS, (32, 32, 3), name="colours")


@pytest.fixture(scope="session")
def letters(tensorflow, tmp_path_factory):
    """A bundle of the 26 letters in grey: the lighter the image, the later the letter."""
    tf = tensorflow
    levels = tf.constant(np.arange(26, dtype=np.float32) + 0.5)

    def answer(pixels):
        return -((tf.reduce_mean(pixels, axis=1, keepdims=True) / 255 * 26 - levels) ** 2)

    folder = tmp_path_factory.mktemp("bundles") / "letters"
    content = litert_file(tf, answer)
    return write_labelled(folder, content, string.ascii_uppercase, (28, 28, 1), name="letters")


@pytest.fixture(scope="session")
def made(digit_file, brightness, tmp_path_factory):
    """Two bundles: `made[3]` always answers 3, `made[8]` always 8."""
    folder = tmp_path_factory.mktemp("bundles")
    return {
        digit: write_bundle(folder / str(digit), digit_file(digit), likelihood=brightness)
        for digit in (3, 8)
    }
