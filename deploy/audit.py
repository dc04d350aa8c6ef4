"""Supply-chain checks: vulnerabilities, secrets, licences and a CycloneDX SBOM (`make audit`).

A check that could not be made is reported as NOT CHECKED and fails. With `--offline`, an
unreachable advisory service is still reported, but does not fail.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SERVICE = "https://api.osv.dev/v1/query"
BASELINE = ".secrets.baseline"
UNREACHABLE = re.compile(r"(Connection|Proxy|SSL)Error|Timeout|Could not connect")


class Pin(NamedTuple):
    """One requirement of a lock file, with any environment marker."""

    name: str
    version: str
    text: str  # as pip-audit reads it: with hashes, without marker


class Finding(NamedTuple):
    """The result of a check: whether it passed, and what to print."""

    good: bool
    text: str


class ToolError(Exception):
    """A tool is missing or failed; the message says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all checks and print their findings; return 0 if all passed."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.audit", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of the repository")
    parser.add_argument("--service", default=SERVICE, help="advisory service, OSV's protocol")
    parser.add_argument("--offline", action="store_true", help="pass if it cannot be reached")
    options = parser.parse_args(arguments)
    root: Path = options.root
    out = root / "build/audit"
    out.mkdir(parents=True, exist_ok=True)
    locks = {lock.name: pins(lock.read_text()) for lock in sorted(root.glob("requirements/*.txt"))}
    checks: dict[str, Callable[[], Finding]] = {
        "vulnerabilities": lambda: vulnerabilities(locks, options.service, options.offline),
        "secrets": lambda: secrets(root),
        "licences": lambda: licences(locks.get("serve.txt", []), out / "licences.md"),
        "sbom": lambda: sbom(root, locks, out),
    }
    good = True
    for name, check in checks.items():
        try:
            finding = check()
        except ToolError as error:
            finding = Finding(False, f"NOT CHECKED: {error}")
        good = good and finding.good
        indented = finding.text.replace("\n", "\n" + " " * 17)
        print(f"{name:15}  {indented}", flush=True)
    return 0 if good else 1


def pins(lock: str) -> list[Pin]:
    """Parse a lock file: every pin, also those for other systems and Python versions."""
    found = []
    for requirement in re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", lock, flags=re.MULTILINE)):
        head = re.match(r"([\w.-]+)(?:\[[^]]*\])?==([^\s;]+)", requirement)
        if head:
            hashes = re.findall(r"--hash=\S+", requirement)
            name = canonical(head[1])
            found.append(Pin(name, head[2], " ".join([f"{name}=={head[2]}", *hashes])))
        elif requirement.strip():
            raise ValueError(f"not a pin: {requirement.splitlines()[0]}")
    return found


def canonical(name: str) -> str:
    """Return a package's name as PyPI compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def vulnerabilities(locks: dict[str, list[Pin]], service: str, offline: bool) -> Finding:
    """Look up every locked version in the advisory service."""
    known: dict[tuple[str, str], list[str]] = {}
    left = sorted({pin for lock in locks.values() for pin in lock})
    try:
        while left:  # pip-audit takes one version of a package at a time
            batch = {pin.name: pin for pin in reversed(left)}
            known |= advisories(batch.values(), service)
            left = [pin for pin in left if batch[pin.name] != pin]
    except ConnectionError:
        return Finding(offline, f"NOT CHECKED: the advisory service cannot be reached ({service})")
    lines, good = [], True
    for name, lock in locks.items():
        bad = [pin for pin in lock if known[pin[:2]]]
        good = good and not bad
        count = f"{len(bad)} with known vulnerabilities" if bad else "none with a known one"
        lines.append(f"requirements/{name}: {len(lock)} versions, {count}")
        lines += [f"  {pin.name} {pin.version}: {', '.join(known[pin[:2]])}" for pin in bad]
    return Finding(good and bool(locks), "\n".join(lines) or "no lock files")


def advisories(batch: Iterable[Pin], service: str) -> dict[tuple[str, str], list[str]]:
    """Return the ids of the advisories by name and version, with pip-audit.

    Raises:
        ConnectionError: the service cannot be reached.
        ToolError: pip-audit failed, or left out a version.
    """
    with tempfile.TemporaryDirectory() as folder:
        lock, report = Path(folder, "lock.txt"), Path(folder, "report.json")
        lock.write_text("".join(f"{pin.text}\n" for pin in batch))
        # Without --strict, pip-audit passes versions that it could not look up.
        done = run(
            *("pip-audit", "--strict", "--require-hashes", "--disable-pip"),
            *("--progress-spinner", "off", "--vulnerability-service", "osv", "--osv-url", service),
            *("--format", "json", "--output", str(report), "--requirement", str(lock)),
        )
        if not report.exists():
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            if UNREACHABLE.search(last):
                raise ConnectionError(last)
            raise ToolError(f"pip-audit: {last}")
        answers = json.loads(report.read_text())["dependencies"]
    found = {(a["name"], a["version"]): [v["id"] for v in a["vulns"]] for a in answers}
    missing = [pin.name for pin in batch if pin[:2] not in found]
    if missing:
        raise ToolError(f"pip-audit left out {', '.join(missing)}")
    return found


def secrets(root: Path) -> Finding:
    """Scan the files that Git tracks for secrets that the baseline does not list."""
    baseline = root / BASELINE
    if not baseline.exists():
        raise ToolError(f"{BASELINE} is missing")
    tracked = run("git", "ls-files", "-z", cwd=root).stdout.split("\0")[:-1]
    files = [name for name in tracked if (root / name).is_file() and name != BASELINE]
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copy(baseline, folder)  # the tool updates line numbers in its baseline
        hook = "detect-secrets-hook", "--json", "--no-verify", "--baseline", str(copy)
        done = run(*hook, *files, cwd=root)
    if done.returncode == 1 and done.stdout.startswith("{"):
        places = [
            f"  {file}:{secret['line_number']}: {secret['type']}"
            for file, found in json.loads(done.stdout)["results"].items()
            for secret in found
        ]
        head = f"FOUND in {len(files)} tracked files; mark others `# pragma: allowlist secret`"
        return Finding(False, "\n".join([head, *places]))
    if done.returncode not in (0, 3):  # 3: line numbers in the baseline have moved
        raise ToolError(f"detect-secrets: {(done.stderr or done.stdout).strip()[-200:]}")
    return Finding(True, f"none in {len(files)} tracked files beyond {BASELINE}")


def licences(served: Iterable[Pin], path: Path) -> Finding:
    """Write a table of the licence of each installed package."""
    packages = json.loads(
        checked(*("pip-licenses", "--python", sys.executable), *("--from", "mixed", "-f", "json"))
    )
    image = {pin.name for pin in served}
    lines = ["| package | version | licence | in the serving image |", "|---|---|---|---|"]
    for package in packages:
        name, licence = package["Name"], " ".join(package["License"].split())
        where = "yes" if canonical(name) in image else ""
        lines.append(f"| {name} | {package['Version']} | {licence} | {where} |")
    absent = sorted(image - {canonical(package["Name"]) for package in packages})
    lines += [f"| {name} | | not installed here | yes |" for name in absent]
    path.write_text("\n".join(lines) + "\n")
    text = f"of {len(packages)} packages in build/audit/{path.name}"
    if unknown := sum(package["License"] == "UNKNOWN" for package in packages):
        text += f"; {unknown} do not state one"
    if absent:
        text += f"; in the serving image, not installed here: {', '.join(absent)}"
    return Finding(True, text)


def sbom(root: Path, locks: dict[str, list[Pin]], out: Path) -> Finding:
    """Write a reproducible CycloneDX SBOM for each lock file."""
    lines = []
    for name, lock in locks.items():
        path = out / Path(name).with_suffix(".cdx.json").name
        checked(
            *("cyclonedx-py", "requirements", "--output-reproducible", "--of", "JSON"),
            *("--output-file", str(path), "--pyproject", str(root / "pyproject.toml")),
            str(root / "requirements" / name),
        )
        components = json.loads(path.read_text())["components"]
        if len(components) != len(lock):
            raise ToolError(f"{path.name} has {len(components)} of {len(lock)} versions")
        lines.append(f"{len(components)} components in build/audit/{path.name}")
    return Finding(bool(lines), "\n".join(lines) or "no lock files")


def checked(program: str, *arguments: str) -> str:
    """Run a program; return its output, or raise ToolError if it fails."""
    done = run(program, *arguments)
    if done.returncode:
        raise ToolError(f"{program}: {done.stderr.strip()[-200:]}")
    return done.stdout


def run(program: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program of this environment, or of the system."""
    beside = Path(sys.executable).parent / program
    found = str(beside) if beside.exists() else shutil.which(program)
    if found is None:
        raise ToolError(f"{program} is not installed: make setup")
    return subprocess.run(  # noqa: S603  our own names and arguments
        [found, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


if __name__ == "__main__":
    sys.exit(main())
