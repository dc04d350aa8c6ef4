"""Clones of the working tree, built and unbuilt, and a browser."""

import shutil

import pytest
from support.chromium import chromium
from support.clones import ROOT, copied, made_once, quick, unbuilt


@pytest.fixture
def empty_clone(tmp_path):
    """An unbuilt clone without `../shared`."""
    return unbuilt(tmp_path / "alone")


@pytest.fixture(scope="module")
def module_clone(tmp_path_factory):
    """An unbuilt clone for all tests of a module."""
    return quick(unbuilt(tmp_path_factory.mktemp("clone")))


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def rebuilt(tmp_path_factory):
    """A clone in which `data: digits` was rebuilt; do not change it."""

    def make(folder):
        clone = quick(unbuilt(folder))
        clone.pick("data", "digits")
        clone.commit("digits")
        output = clone.run("dvc", "repro")
        clone.commit("rebuilt")
        return output

    return made_once(tmp_path_factory, "rebuilt", make)


@pytest.fixture(scope="session")
def champion(tmp_path_factory):
    """A clone in which MNIST's champion was registered; what this workspace has built is reused."""
    shared = ROOT.parent / "shared" / "mnist"
    if not shared.exists():
        pytest.skip("needs the files of MNIST in ../shared/mnist")

    def make(folder):
        clone = unbuilt(folder)
        if (ROOT / ".dvc" / "cache").exists():
            shutil.copytree(ROOT / ".dvc" / "cache", clone.folder / ".dvc" / "cache")
        clone.run("dvc", "repro", MNIST_MIRROR=str(shared))
        return clone.run("python", "-m", "pipeline.register")

    return made_once(tmp_path_factory, "champion", make)


@pytest.fixture
def clone(rebuilt, tmp_path):
    """A copy of the rebuilt clone to work in, with its cache."""
    return copied(rebuilt, tmp_path)
