"""The lock files: hashed, without an index, and the service's without what trains."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCKS = {
    extra: (ROOT / f"requirements/{extra}.txt").read_text()
    for extra in ("serve", "train", "gpu", "dev")
}


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("requirements/*.txt")), ids=lambda path: path.stem
)
def test_a_lock_names_no_index_and_hashes_everything(path):
    lock = path.read_text()
    assert "://" not in lock
    assert "--index" not in lock
    requirements = re.split(r"\n(?=\S)", lock.strip())
    assert requirements
    assert all("--hash=sha256:" in requirement for requirement in requirements)


def test_so_does_that_of_npm():
    lock = json.loads((ROOT / "requirements/package-lock.json").read_text())
    packages = [package for name, package in lock["packages"].items() if name]
    assert all("integrity" in package and "resolved" not in package for package in packages)


def pinned(extra):
    """Names and versions; markers say the same in other words from lock to lock."""
    return set(re.findall(r"^([\w.-]+(?:\[[^]]*\])?)==(\S+)", LOCKS[extra], re.MULTILINE))


def test_the_service_is_installed_without_what_trains():
    names = {name for name, _ in pinned("serve")}
    assert {"ai-edge-litert", "numpy", "pillow"} <= names
    unwanted = re.compile("tensorflow|keras|dvc|hydra|mlflow(?!-skinny)|matplotlib|scikit")
    assert not {name for name in names if unwanted.match(name)}


def test_locks_agree_on_versions():
    assert pinned("serve") <= pinned("dev")
    assert pinned("train") <= pinned("dev")


def test_the_gpu_lock_has_one_build_of_tensorflow():
    names = {name for name, _ in pinned("gpu")}
    assert "tensorflow" in names
    assert "tensorflow-cpu" not in names
