"""`make doctor`: what a machine lacks is named with its fix."""

import ast
import json
import re
import shutil
import socket
import subprocess
import sys

import pytest
from support.service_process import ROOT

from deploy import doctor
from serve.settings import Settings

DOCTOR = ROOT / "deploy/doctor.py"


def copy(folder):
    """The files that it reads, in a folder that is no clone."""
    for name in ("deploy/doctor.py", "conf/data/mnist.yaml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def run(folder, **environment):
    done = subprocess.run(
        [sys.executable, folder / "deploy/doctor.py"],
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), **environment},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_a_clone_that_can_work_has_no_fault_and_fits_a_terminal():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = str(probe.getsockname()[1])
    status, said = run(ROOT, API_PORT=free)
    assert status == 0, said
    assert "FIX" not in said
    assert f"ok   port {free}" in said
    assert max(map(len, said.splitlines())) <= 80


def test_what_is_missing_is_named_with_its_fix(tmp_path):
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        taken = busy.getsockname()[1]
        dead = {"https_proxy": "http://127.0.0.1:9", "PIP_RETRIES": "0"}
        status, said = run(copy(tmp_path), API_PORT=str(taken), **dead)
    assert status == 1
    for what, fix in (
        ("Git", "git clone"),
        (f"port {taken}", f"API_PORT={taken + 1}"),
        ("packages", "pip config list"),
        ("MNIST", "make demo needs none"),
    ):
        assert f"FIX  {what:<12}" in said
        assert fix in said
    assert "note environment" in said


@pytest.mark.parametrize(
    ("finding", "fix"),
    [
        (doctor.system("Windows", "AMD64"), "WSL 2"),
        (doctor.system("Darwin", "x86_64"), "Linux"),
        (doctor.python((3, 10)), "3.11 to 3.13"),
        (doctor.python((3, 14)), "3.11 to 3.13"),
        (doctor.disk(4 * doctor.GB, installed=False), "5 GB"),
        (doctor.memory(2 * doctor.GB), "4 GB"),
    ],
)
def test_a_machine_that_is_not_enough(finding, fix):
    assert fix in finding.fix


def test_one_that_is_enough():
    for finding in (
        doctor.system("Darwin", "arm64"),
        *(doctor.python((3, minor)) for minor in (11, 12, 13)),
        doctor.disk(2 * doctor.GB, installed=True),
        doctor.memory(8 * doctor.GB),
    ):
        assert not finding.fix


def test_a_python_that_is_too_old_can_say_so():
    ast.parse(DOCTOR.read_text(), feature_version=(3, 8))


def test_the_dev_container_is_a_machine_that_can_work():
    described = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    version = re.search(r"python:(\d+)\.(\d+)-", described["image"])
    assert not doctor.python(tuple(map(int, version.groups()))).fix
    wants = described["hostRequirements"]
    sizes = [int(wants[name].removesuffix("gb")) * doctor.GB for name in ("memory", "storage")]
    assert not doctor.memory(sizes[0]).fix
    assert not doctor.disk(sizes[1], installed=False).fix
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    called = re.findall(r"make ([a-z-]+)", described["postCreateCommand"])
    assert set(called) <= set(targets)
    assert Settings.model_fields["api_port"].default in described["forwardPorts"]
