"""What every test may use."""

import shutil

import pytest


def pytest_runtest_setup(item):
    """Skips a `system` test whose program is missing, naming the package that brings it."""
    for marker in item.iter_markers("system"):
        program, package = marker.args
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}: apt-get install {package}, or make system")
