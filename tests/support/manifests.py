"""What the tests of manifests share: tools, and what the service says about itself."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from serve.settings import Settings

ROOT = Path(__file__).parents[2]
SCHEMAS = Path(__file__).parent / "schemas"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
COMPOSE = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
IMAGES = {"digit-platform", "digit-platform-trainer"}
MEASURED_PEAK = 396  # MB: four AVIFs of 24 megapixels at once, while it pulls from a registry
INSIDE = {"/metrics", "/api/window", "/api/reference"}  # paths that a balancer leads nobody to
SUPERVISOR = 2  # seconds that `serve` gives its processes beyond draining and shutting down


def tool(name):
    """A program of the dev extra: on the PATH, or beside this Python."""
    found = shutil.which(name) or shutil.which(name, path=Path(sys.executable).parent)
    assert found, f"{name} is missing: make setup"
    return found


def lacking(what):
    """Skips a test, saying what it needs; in CI it fails."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def npm(package):
    """The folder of a package of `requirements/package-lock.json`."""
    if not (ROOT / "build/npm/installed").exists():
        lacking("needs packages of npm: make build/npm/installed")
    return ROOT / "build/npm/node_modules" / package


def succeeds(*command):
    """What the command prints; fails with that if it does."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def follows(*schema_and_files):
    """Files follow a schema: check-jsonschema here, as most of the command's time is its start."""
    from check_jsonschema import main as check_jsonschema  # 1.4 s, for whoever collects the tests

    done = CliRunner().invoke(check_jsonschema, [*map(str, schema_and_files)])
    assert done.exit_code == 0, done.output


def check_schema(name, file):
    follows("--schemafile", SCHEMAS / f"{name}.json", file)


def check_policies(framework, file):
    """Checkov finds nothing, has found something to look at, and skips nothing without a reason."""
    program = ROOT / ".venv-policy/bin/checkov"
    found = program if program.exists() else shutil.which("checkov")
    if not found:
        lacking("needs checkov: make .venv-policy/installed (its pins exclude ours)")
    nowhere = "http://127.0.0.1:9"  # it must not download anything
    done = subprocess.run(
        [found, "--framework", framework, "--skip-download", "--output", "json", "--file", file],
        env={**os.environ, "http_proxy": nowhere, "https_proxy": nowhere, "LOG_LEVEL": "ERROR"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    report = json.loads(done.stdout)
    summary, results = report["summary"], report["results"]
    failed = [(c["check_id"], c["check_name"], c["resource"]) for c in results["failed_checks"]]
    assert not failed
    assert done.returncode == 0, done.stderr
    assert summary["parsing_errors"] == 0
    assert summary["passed"] > 20
    for check in results["skipped_checks"]:
        assert len(check["check_result"]["suppress_comment"]) > 20, check["check_id"]


def settings(variables):
    """The service's settings from such variables; the service would refuse wrong ones too."""
    unknown = set(variables) - {name.upper() for name in Settings.model_fields}
    assert not unknown
    return Settings(**{name.lower(): value for name, value in variables.items() if value})


def check_image(image, *, pushed=False):
    """One of ours, with the version of this repository, where a registry holds it if `pushed`."""
    name, _, tag = image.partition("@")[0].rpartition(":")
    assert name.rpartition("/")[2] in IMAGES
    assert tag == VERSION
    assert not pushed or "/" in name


def stop_seconds(chosen):
    """How long the service takes to stop, at most."""
    return chosen.drain_seconds + chosen.shutdown_seconds + SUPERVISOR
