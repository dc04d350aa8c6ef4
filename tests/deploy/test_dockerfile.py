"""The Dockerfile as text; image/verify.sh builds it and runs what it makes."""

import re
import shutil
import subprocess

import pytest
from support.manifests import ROOT, VERSION, succeeds, tool

from serve.settings import Settings

TEXT = (ROOT / "Dockerfile").read_text()


def test_hadolint_finds_nothing():
    succeeds(tool("hadolint"), ROOT / "Dockerfile")


def test_what_is_installed_is_locked_and_hashed():
    installs = re.findall(r"-m pip --python \S+ install(.*?)(?=\n\S)", TEXT, re.S)
    assert len(installs) == 2
    for install in installs:
        assert "--require-hashes" in install
        assert "--only-binary :all:" in install


def test_the_variables_that_it_sets_are_known_to_the_service():
    given = set(re.findall(r"\b([A-Z][A-Z_]+)=\S", TEXT.split("FROM ${BASE} AS registered")[1]))
    of_service = {name.upper() for name in Settings.model_fields}
    others = {"PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "HOME", "VERSION"}
    assert given - others <= of_service
    assert {"API_HOST", "API_PORT", "API_WORKERS", "STATE_DIR", "MODEL_URI"} <= given


def test_neither_data_nor_secrets_can_get_in():
    kept = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in kept if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = [rule[1:] for rule in rules if rule.startswith("!")]
    assert not [
        path for path in let_in if re.match(r"/(data|\.git$|\.env|mlflow|\.venv|logs)", path)
    ]
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", TEXT, re.M)
    sources = {f"/{name}" for line in copied for name in line.split() if "$" not in name}
    assert all(any(name.startswith(path) for path in let_in) for name in sources), sources


def build(script, *arguments):
    """Runs the script with an engine that prints its arguments."""
    engine = script.parents[2] / "podman"
    engine.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    engine.chmod(0o755)
    given = {"PATH": f"{engine.parent}:/usr/bin:/bin", "ENGINE": "podman"}
    return subprocess.run(
        [script, *arguments], env=given, capture_output=True, text=True, check=False
    )


@pytest.fixture
def script(tmp_path):
    """`build.sh` in a repository with some models."""
    (tmp_path / "deploy/image").mkdir(parents=True)
    shutil.copy(ROOT / "deploy/image/build.sh", tmp_path / "deploy/image")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "models/empty").mkdir(parents=True)
    for each in ("models/champion", "models/runs/2", ".demo/champion", "elsewhere"):
        (tmp_path / each).mkdir(parents=True)
        for name in ("model.tflite", "model.json"):
            (tmp_path / each / name).write_text("x")
    return tmp_path / "deploy/image/build.sh"


def test_the_command_that_builds_it_takes_any_engine(script):
    words = build(script, "trainer", "--no-cache").stdout.split("\n")
    assert words[:2] == ["build", "--target"]
    assert {"trainer", f"digit-platform-trainer:{VERSION}", "--no-cache", "docker"} <= set(words)


@pytest.mark.parametrize(
    ("folder", "builds"),
    [
        ("models/champion", True),
        ("models/runs/2", True),
        (".demo/champion", True),
        ("models/empty", False),
        ("models/nowhere", False),
        ("elsewhere", False),
        ("models/../elsewhere", False),
    ],
)
def test_any_model_of_the_repository_may_be_baked_in(script, folder, builds):
    done = build(script, "serve", "--build-arg", f"MODEL_DIR={folder}")
    assert (done.returncode == 0) == builds, done.stderr
    assert (f"MODEL_DIR={folder}" in done.stderr) == (not builds)


def test_deployments_mount_what_it_has():
    """Whoever moves a folder in the image moves it everywhere."""
    state = re.search(r"^VOLUME (\S+)$", TEXT, re.M)[1]
    baked = re.search(r"^COPY \$\{MODEL_DIR\}/ (\S+?)/?$", TEXT, re.M)[1]
    pipeline = re.search(r" AS trainer\n.*?^WORKDIR (\S+)$", TEXT, re.M | re.S)[1]
    assert f"STATE_DIR={state} " in TEXT
    assert f"MODEL_URI={baked}\n" in TEXT
    files = [ROOT / "deploy/compose.yaml", *(ROOT / "deploy").glob("*/**/*.yaml")]
    texts = "\n".join(file.read_text() for file in files)
    assert set(re.findall(r"(?:STATE_DIR=|STATE_DIR\W+value: *|- state:)(/\w+)", texts, re.I)) == {
        state
    }
    assert set(re.findall(r"(?:MODEL_URI=|MODEL_URI\W+value: *)(/\w+)", texts, re.I)) == {baked}
    assert set(re.findall(r"\bcp, -R, (/\w+)|cache:(/\w+)/\.dvc", texts)) == {
        (pipeline, ""),
        ("", pipeline),
    }
