"""Supply-chain checks: vulnerabilities, secrets, licences and a CycloneDX SBOM (`make audit`).

A check that could not be made is reported as NOT CHECKED and fails. With `--offline`, an
unreachable advisory service is still reported, but does not fail.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from packaging.utils import canonicalize_name

SERVICE = "https://api.osv.dev/v1/query"
BASELINE = Path(".secrets.baseline")
OUT = Path("build/audit")
UNREACHABLE = re.compile(r"(Connection|Proxy|SSL)Error|Timeout|Could not connect")

Version = tuple[str, str]  # name and version of a package
Lock = dict[Version, str]  # with its requirement as pip-audit reads it: hashes, no marker


class AuditError(Exception):
    """A check found something, or could not be made; the message says which."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the repository in the working folder and print what was found; return 0 if nothing."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.audit", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--service", default=SERVICE, help="advisory service, OSV's protocol")
    parser.add_argument("--offline", action="store_true", help="pass if it cannot be reached")
    options = parser.parse_args(arguments)
    OUT.mkdir(parents=True, exist_ok=True)
    files = sorted(Path("requirements").glob("*.txt"))
    locks = {file.stem: pins(file.read_text()) for file in files}
    checks: dict[str, Callable[[], str]] = {
        "vulnerabilities": lambda: vulnerabilities(locks, options.service, options.offline),
        "secrets": secrets,
        "licences": lambda: licences({name for name, _ in locks["serve"]}),
        "sbom": lambda: sbom(locks),
    }
    status = 0
    for name, check in checks.items():
        try:
            text = check()
        except AuditError as error:
            text, status = str(error), 1
        indented = text.replace("\n", "\n" + " " * 17)
        print(f"{name:15}  {indented}", flush=True)
    return status


def pins(text: str) -> Lock:
    """Parse a lock file: every pin, also those for other systems and Python versions."""
    lock: Lock = {}
    for requirement in re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)):
        head = re.match(r"([\w.-]+)(?:\[[^]]*\])?==([^\s;]+)", requirement)
        if head:
            name, version = canonicalize_name(head[1]), head[2]
            hashes = re.findall(r"--hash=\S+", requirement)
            lock[name, version] = " ".join([f"{name}=={version}", *hashes])
        elif requirement.strip():
            raise ValueError(f"not a pin: {requirement.splitlines()[0]}")
    return lock


def vulnerabilities(locks: dict[str, Lock], service: str, offline: bool) -> str:
    """Look up every locked version in the advisory service."""
    left = {version: text for lock in locks.values() for version, text in lock.items()}
    known: dict[Version, list[str]] = {}
    try:
        while left:  # pip-audit takes one version of a package at a time
            batch = {name: (name, version) for name, version in left}.values()
            known |= advisories({version: left.pop(version) for version in batch}, service)
    except ConnectionError:
        text = f"NOT CHECKED: the advisory service cannot be reached ({service})"
        if offline:
            return text
        raise AuditError(text) from None
    bad = sorted(version for version, ids in known.items() if ids)
    if not bad:
        return f"none known in {len(known)} versions of {len(locks)} locks"
    lines = [f"{len(bad)} of {len(known)} locked versions have known ones"]
    for version in bad:
        where = ", ".join(name for name, lock in locks.items() if version in lock)
        lines.append(f"  {' '.join(version)} ({where}): {', '.join(known[version])}")
    raise AuditError("\n".join(lines))


def advisories(batch: Lock, service: str) -> dict[Version, list[str]]:
    """Return the ids of the advisories of each version, with pip-audit.

    Raises:
        ConnectionError: the service cannot be reached.
        AuditError: pip-audit failed, or left out a version.
    """
    with tempfile.TemporaryDirectory() as folder:
        lock, report = Path(folder, "lock.txt"), Path(folder, "report.json")
        lock.write_text("".join(f"{text}\n" for text in batch.values()))
        # Without --strict, pip-audit passes versions that it could not look up.
        done = run(
            *("pip-audit", "--strict", "--require-hashes", "--disable-pip"),
            *("--progress-spinner", "off", "--vulnerability-service", "osv", "--osv-url", service),
            *("--format", "json", "--output", str(report), "--requirement", str(lock)),
            passes=(0, 1),
        )
        if not report.exists():
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            if UNREACHABLE.search(last):
                raise ConnectionError(last)
            raise AuditError(f"NOT CHECKED: pip-audit: {last}")
        answers = json.loads(report.read_text())["dependencies"]
    found = {(a["name"], a["version"]): [v["id"] for v in a["vulns"]] for a in answers}
    if missing := batch.keys() - found.keys():
        raise AuditError(f"NOT CHECKED: pip-audit left out {sorted(missing)}")
    return found


def secrets() -> str:
    """Scan the files that Git tracks for secrets that the baseline does not list."""
    if not BASELINE.exists():
        raise AuditError(f"NOT CHECKED: {BASELINE} is missing")
    tracked = run("git", "ls-files", "-z").stdout.split("\0")[:-1]
    files = [name for name in tracked if Path(name).is_file() and name != str(BASELINE)]
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copy(BASELINE, folder)  # the tool updates line numbers in its baseline
        hook = "detect-secrets-hook", "--json", "--no-verify", "--baseline", str(copy)
        done = run(*hook, *files, passes=(0, 1, 3))  # 3: line numbers in it have moved
    if done.returncode == 1 and not done.stdout:
        raise AuditError(f"NOT CHECKED: detect-secrets: {done.stderr.strip()[-200:]}")
    if done.returncode == 1:
        lines = [f"FOUND in {len(files)} tracked files; mark others `# pragma: allowlist secret`"]
        for file, found in json.loads(done.stdout)["results"].items():
            lines += [f"  {file}:{secret['line_number']}: {secret['type']}" for secret in found]
        raise AuditError("\n".join(lines))
    return f"none in {len(files)} tracked files beyond {BASELINE}"


def licences(image: Collection[str]) -> str:
    """Write a table of the licence of each installed package; `image`: names in the image."""
    done = run("pip-licenses", "--python", sys.executable, "--from", "mixed", "-f", "json")
    packages = {canonicalize_name(each["Name"]): each for each in json.loads(done.stdout)}
    lines = ["| package | version | licence | in the serving image |", "|---|---|---|---|"]
    for name, package in packages.items():
        licence, where = " ".join(package["License"].split()), "yes" if name in image else ""
        lines.append(f"| {package['Name']} | {package['Version']} | {licence} | {where} |")
    absent = sorted(set(image) - packages.keys())
    lines += [f"| {name} | | not installed here | yes |" for name in absent]
    (OUT / "licences.md").write_text("\n".join(lines) + "\n")
    text = f"of {len(packages)} packages in {OUT}/licences.md"
    if unknown := sum(package["License"] == "UNKNOWN" for package in packages.values()):
        text += f"; {unknown} do not state one"
    if absent:
        text += f"; in the serving image, not installed here: {', '.join(absent)}"
    return text


def sbom(locks: dict[str, Lock]) -> str:
    """Write a reproducible CycloneDX SBOM for each lock file."""
    lines = []
    for name, lock in locks.items():
        path = OUT / f"{name}.cdx.json"
        run(
            *("cyclonedx-py", "requirements", "--output-reproducible", "--of", "JSON"),
            *("--output-file", str(path), "--pyproject", "pyproject.toml"),
            f"requirements/{name}.txt",
        )
        components = json.loads(path.read_text())["components"]
        if len(components) != len(lock):
            raise AuditError(f"{path} has {len(components)} of {len(lock)} versions")
        lines.append(f"{len(components)} components in {path}")
    return "\n".join(lines)


def run(
    program: str, *arguments: str, passes: Collection[int] = (0,)
) -> subprocess.CompletedProcess[str]:
    """Run a program of this environment or of the system; AuditError if it lacks or fails."""
    beside = Path(sys.executable).parent / program
    found = str(beside) if beside.exists() else shutil.which(program)
    if found is None:
        raise AuditError(f"NOT CHECKED: {program} is not installed: make setup")
    command = [found, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  ours
    if done.returncode not in passes:
        raise AuditError(f"NOT CHECKED: {program}: {(done.stderr or done.stdout).strip()[-200:]}")
    return done


if __name__ == "__main__":
    sys.exit(main())
