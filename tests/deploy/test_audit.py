"""`make audit`: says what it could not check, and finds what is planted."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from deploy import audit

ROOT = Path(__file__).parents[2]
LOCKS = sorted(ROOT.glob("requirements/*.txt"))
# In two parts, or the scan of this file would find it.
FAKE = 'aws_key = "AKIA' + 'QWERTYUIOPASDFGH"\n'


def needs(*tools):
    missing = [
        tool
        for tool in tools
        if not (Path(sys.executable).parent / tool).exists() and not shutil.which(tool)
    ]
    skipped = bool(missing) and not os.environ.get("CI")  # there the test fails by it
    return pytest.mark.skipif(skipped, reason=f"not installed: {', '.join(missing)}")


def lock(*pins):
    return "".join(f"{pin} \\\n    --hash=sha256:{'0' * 64}\n" for pin in pins)


@contextmanager
def advisory_service(*vulnerable):
    """One of our own on loopback, in OSV's protocol; yields its address and what it was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name, version = query["package"]["name"], query["version"]
            asked.append((name, version))
            bad = {"id": "FAKE-1", "affected": [], "summary": "planted"}
            answer = {"vulns": [bad]} if f"{name}=={version}" in vulnerable else {}
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/query", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def refusing():
    """An address on loopback where nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}/v1/query"


@pytest.fixture
def repository(tmp_path):
    """A small one, with what the audit looks at."""
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements/serve.txt").write_text(lock("idna==3.10", "numpy==2.4.6"))
    (tmp_path / "settings.py").write_text('name = "seven"\n')
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copy(ROOT / audit.BASELINE, tmp_path)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_every_pin_of_a_lock_is_read(path):
    text = path.read_text()
    found = audit.pins(text)
    assert len(found) == len(re.findall(r"^\S+==", text, re.MULTILINE)) > 50
    assert sum(pin.text.count("--hash=") for pin in found) == text.count("--hash=")


def test_pins_of_other_systems_count():
    text = lock(
        "numpy==2.4.6 ; python_full_version < '3.12'", "colorama==0.4.6 ; sys_platform == 'x'"
    )
    assert [pin[:2] for pin in audit.pins(text)] == [("numpy", "2.4.6"), ("colorama", "0.4.6")]


def test_what_is_no_pin_is_refused():
    with pytest.raises(ValueError, match="not a pin: requests>=2"):
        audit.pins(lock("idna==3.10") + "requests>=2\n")


@needs("pip-audit")
def test_every_version_of_every_lock_is_looked_up():
    locks = {path.name: audit.pins(path.read_text()) for path in LOCKS}
    assert {"serve.txt", "train.txt", "dev.txt", "gpu.txt"} <= set(locks)
    with advisory_service() as (service, asked):
        finding = audit.vulnerabilities(locks, service, offline=False)
    assert finding.good, finding.text
    assert set(asked) == {pin[:2] for found in locks.values() for pin in found}
    for name, found in locks.items():
        assert f"requirements/{name}: {len(found)} versions, none with a known one" in finding.text


@needs("pip-audit")
def test_a_vulnerability_of_another_pythons_version_is_found():
    text = lock(
        "numpy==2.4.6 ; python_full_version < '3'", "numpy==2.5.5 ; python_full_version >= '4'"
    )
    with advisory_service("numpy==2.5.5") as (service, _):
        finding = audit.vulnerabilities({"serve.txt": audit.pins(text)}, service, offline=True)
    assert not finding.good
    assert "numpy 2.5.5: FAKE-1" in finding.text
    assert "numpy 2.4.6" not in finding.text


@needs("pip-audit")
def test_a_pin_without_a_hash_is_not_called_checked():
    with advisory_service() as (service, _), pytest.raises(audit.ToolError, match="hash"):
        audit.vulnerabilities({"serve.txt": audit.pins("idna==3.10\n")}, service, offline=True)


@needs("pip-audit")
@pytest.mark.parametrize("offline", [False, True])
def test_an_advisory_service_out_of_reach_is_said(refusing, offline):
    locks = {"serve.txt": audit.pins(lock("idna==3.10"))}
    finding = audit.vulnerabilities(locks, refusing, offline=offline)
    assert finding.text.startswith("NOT CHECKED: the advisory service cannot be reached")
    assert finding.good is offline


@needs("detect-secrets-hook")
def test_a_planted_secret_is_found(repository):
    assert audit.secrets(repository).good
    (repository / "settings.py").write_text('name = "seven"\n' + FAKE)
    finding = audit.secrets(repository)
    assert not finding.good
    assert "settings.py:2: AWS Access Key" in finding.text
    assert FAKE.split('"')[1] not in finding.text


@needs("detect-secrets-hook")
def test_no_tracked_file_has_a_secret():
    finding = audit.secrets(ROOT)
    assert finding.good, finding.text


@needs("detect-secrets-hook")
def test_without_a_baseline_nothing_is_called_clean(repository):
    (repository / audit.BASELINE).unlink()
    with pytest.raises(audit.ToolError, match="missing"):
        audit.secrets(repository)


@needs("cyclonedx-py")
def test_the_sbom_has_each_version_and_is_the_same_each_time(repository):
    locks = {"serve.txt": audit.pins((repository / "requirements/serve.txt").read_text())}
    path = repository / "serve.cdx.json"
    assert audit.sbom(repository, locks, repository).good
    first = path.read_text()
    document = json.loads(first)
    assert document["bomFormat"] == "CycloneDX"
    assert {part["purl"] for part in document["components"]} == {
        "pkg:pypi/idna@3.10",
        "pkg:pypi/numpy@2.4.6",
    }
    audit.sbom(repository, locks, repository)
    assert path.read_text() == first


@needs("pip-licenses")
def test_licences_are_listed_and_the_images_marked(tmp_path):
    path = tmp_path / "licences.md"
    finding = audit.licences(audit.pins(lock("numpy==2.4.6", "colorama-of-old==0.4")), path)
    assert "not installed here: colorama-of-old" in finding.text
    rows = path.read_text().splitlines()
    assert len(rows) > 50
    assert [row.split(" | ")[0] for row in rows if row.endswith("| yes |")] == [
        "| numpy",
        "| colorama-of-old",
    ]


@needs("pip-audit", "detect-secrets-hook", "pip-licenses", "cyclonedx-py")
@pytest.mark.parametrize(("arguments", "code"), [([], 1), (["--offline"], 0)])
def test_the_command_does_the_rest_where_the_service_is_out_of_reach(
    repository, refusing, arguments, code
):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "deploy.audit",
            "--root",
            repository,
            "--service",
            refusing,
            *arguments,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    said = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert list(said) == ["vulnerabilities", "secrets", "licences", "sbom"]
    assert said["vulnerabilities"].startswith("NOT CHECKED")
    assert "NOT CHECKED" not in done.stdout.split("\n", 1)[1]
    assert (repository / "build/audit/licences.md").exists()
    assert (repository / "build/audit/serve.cdx.json").exists()


def test_a_tool_that_is_missing_is_said(repository, refusing, monkeypatch, capsys):
    monkeypatch.setattr(audit.sys, "executable", "/nowhere/python")
    monkeypatch.setenv("PATH", "/nowhere")
    assert audit.main(["--root", str(repository), "--service", refusing, "--offline"]) == 1
    assert "pip-audit is not installed" in capsys.readouterr().out
