"""`make audit`: says what it could not check, and finds what is planted."""

import json
import re
import shutil
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.processes import python
from support.web_server import Handler, serving

from deploy import audit

ROOT = Path(__file__).parents[2]
LOCKS = sorted(ROOT.glob("requirements/*.txt"))
# In two parts, or the scan of this file would find it.
FAKE = 'aws_key = "AKIA' + 'QWERTYUIOPASDFGH"\n'


def lock(*pins):
    return "".join(f"{pin} \\\n    --hash=sha256:{'0' * 64}\n" for pin in pins)


@contextmanager
def advisory_service(*vulnerable):
    """One of our own on loopback, in OSV's protocol; yields its address and what it was asked."""
    asked = []

    class Advisories(Handler):
        def respond(self):
            query = json.loads(self.body())
            name, version = query["package"]["name"], query["version"]
            asked.append((name, version))
            bad = {"id": "FAKE-1", "affected": [], "summary": "planted"}
            answer = {"vulns": [bad]} if f"{name}=={version}" in vulnerable else {}
            self.answer(200, json.dumps(answer).encode())

    with serving(Advisories) as server:
        yield f"{server.url}/v1/query", asked


@pytest.fixture
def refusing():
    """An address on loopback where nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}/v1/query"


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A small one, with what the audit looks at, as the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "requirements").mkdir()
    (tmp_path / "build/audit").mkdir(parents=True)
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
    assert sum(each.count("--hash=") for each in found.values()) == text.count("--hash=")


def test_pins_of_other_systems_count_and_what_is_no_pin_is_refused():
    text = lock(
        "numpy==2.4.6 ; python_full_version < '3.12'", "colorama==0.4.6 ; sys_platform == 'x'"
    )
    assert list(audit.pins(text)) == [("numpy", "2.4.6"), ("colorama", "0.4.6")]
    with pytest.raises(ValueError, match="not a pin: requests>=2"):
        audit.pins(text + "requests>=2\n")


def test_every_version_of_every_lock_is_looked_up():
    locks = {path.stem: audit.pins(path.read_text()) for path in LOCKS}
    assert {"serve", "train", "dev", "gpu"} <= set(locks)
    wanted = set().union(*locks.values())
    with advisory_service() as (service, asked):
        text = audit.vulnerabilities(locks, service, offline=False)
    assert set(asked) == wanted
    assert text == f"none known in {len(wanted)} versions of {len(locks)} locks"


def test_a_vulnerability_of_another_pythons_version_is_found():
    text = lock(
        "numpy==2.4.6 ; python_full_version < '3'", "numpy==2.5.5 ; python_full_version >= '4'"
    )
    with (
        advisory_service("numpy==2.5.5") as (service, _),
        pytest.raises(audit.AuditError, match=r"numpy 2\.5\.5 \(serve\): FAKE-1") as error,
    ):
        audit.vulnerabilities({"serve": audit.pins(text)}, service, offline=True)
    assert "numpy 2.4.6" not in str(error.value)


def test_a_pin_without_a_hash_is_not_called_checked():
    with (
        advisory_service() as (service, _),
        pytest.raises(audit.AuditError, match=r"NOT CHECKED: .*hash"),
    ):
        audit.vulnerabilities({"serve": audit.pins("idna==3.10\n")}, service, offline=True)


def test_a_planted_secret_is_found(repository):
    assert audit.secrets().startswith("none in ")
    (repository / "settings.py").write_text('name = "seven"\n' + FAKE)
    with pytest.raises(audit.AuditError, match=r"settings\.py:2: AWS Access Key") as error:
        audit.secrets()
    assert FAKE.split('"')[1] not in str(error.value)
    (repository / audit.BASELINE).write_text("no baseline")
    with pytest.raises(audit.AuditError, match=r"(?s)NOT CHECKED: .*Unable to read baseline"):
        audit.secrets()
    (repository / audit.BASELINE).unlink()
    with pytest.raises(audit.AuditError, match=r"NOT CHECKED: .* is missing"):
        audit.secrets()


def test_the_sbom_has_each_version_and_is_the_same_each_time(repository):
    locks = {"serve": audit.pins((repository / "requirements/serve.txt").read_text())}
    path = repository / "build/audit/serve.cdx.json"
    audit.sbom(locks)
    first = path.read_text()
    document = json.loads(first)
    assert document["bomFormat"] == "CycloneDX"
    assert {part["purl"] for part in document["components"]} == {
        "pkg:pypi/idna@3.10",
        "pkg:pypi/numpy@2.4.6",
    }
    audit.sbom(locks)
    assert path.read_text() == first


def test_licences_are_listed_and_the_images_marked(repository):
    assert "not installed here: colorama-of-old" in audit.licences(["numpy", "colorama-of-old"])
    rows = (repository / "build/audit/licences.md").read_text().splitlines()
    assert len(rows) > 50
    assert [row.split(" | ")[0] for row in rows if row.endswith("| yes |")] == [
        "| numpy",
        "| colorama-of-old",
    ]


def test_a_service_that_is_out_of_reach_is_a_fault_unless_that_is_allowed(refusing):
    locks = {"serve": audit.pins(lock("idna==3.10"))}
    with pytest.raises(audit.AuditError, match="NOT CHECKED: the advisory service cannot be"):
        audit.vulnerabilities(locks, refusing, offline=False)
    assert audit.vulnerabilities(locks, refusing, offline=True).startswith("NOT CHECKED")


def test_the_command_does_the_rest_where_the_service_is_out_of_reach(repository, refusing):
    done = python("-m", "deploy.audit", "--service", refusing, "--offline")
    assert done.returncode == 0, done.stderr
    said = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert list(said) == ["vulnerabilities", "secrets", "licences", "sbom"]
    assert said["vulnerabilities"].startswith("NOT CHECKED: the advisory service cannot be reached")
    assert "NOT CHECKED" not in done.stdout.split("\n", 1)[1]
    assert (repository / "build/audit/licences.md").exists()
    assert (repository / "build/audit/serve.cdx.json").exists()


def test_a_tool_that_is_missing_is_said(repository, refusing, monkeypatch, capsys):
    monkeypatch.setattr(audit.sys, "executable", "/nowhere/python")
    monkeypatch.setenv("PATH", "/nowhere")
    assert audit.main(["--service", refusing, "--offline"]) == 1
    assert "pip-audit is not installed" in capsys.readouterr().out
