"""`make audit`: known vulnerabilities, secrets, licences and what everything is made of (SBOM).

A check that could not be made is called NOT CHECKED and fails; with `--offline` an advisory service
out of reach is still called so, but does not fail.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SERVICE = "https://api.osv.dev/v1/query"
BASELINE = ".secrets.baseline"
OUT_OF_REACH = re.compile(r"(Connection|Proxy|SSL)Error|Timeout|Could not connect")


class Pin(NamedTuple):
    """A line of a lock: package, version and hashes, on whatever system."""

    name: str
    version: str
    hashes: tuple[str, ...]


class Finding(NamedTuple):
    """What a check says, and whether that is good enough."""

    good: bool
    text: str


class ToolError(Exception):
    """Why a tool did not do its work."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a paragraph for each check; 0 if all is well."""
    parser = argparse.ArgumentParser(description="Checks what this repository is made of.")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository")
    parser.add_argument("--service", default=SERVICE, help="of advisories, in OSV's protocol")
    parser.add_argument("--offline", action="store_true", help="no failure if it is out of reach")
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
        sys.stdout.write(f"{name:15}  {indented}\n")
        sys.stdout.flush()
    return 0 if good else 1


def pins(lock: str) -> list[Pin]:
    """Every pin, also those for other systems and Pythons, which an installer here would skip."""
    found = []
    for requirement in re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", lock, flags=re.MULTILINE)):
        head = re.match(r"([\w.-]+)(?:\[[^]]*\])?==([^\s;]+)", requirement)
        if head:
            hashes = tuple(re.findall(r"--hash=(\S+)", requirement))
            found.append(Pin(canonical(head[1]), head[2], hashes))
        elif requirement.strip():
            raise ValueError(f"not a pin: {requirement.splitlines()[0]}")
    return found


def vulnerabilities(locks: dict[str, list[Pin]], service: str, offline: bool) -> Finding:
    """What the advisory service knows of each version that a lock names."""
    known: dict[tuple[str, str], list[str]] = {}
    try:
        for batch in batches({pin for lock in locks.values() for pin in lock}):
            known |= advisories(batch, service)
    except ConnectionError:
        return Finding(offline, f"NOT CHECKED: the advisory service cannot be reached ({service})")
    lines, good = [], True
    for name, lock in locks.items():
        bad = [pin for pin in lock if known[pin[:2]]]
        good = good and not bad
        said = f"{len(bad)} with known vulnerabilities" if bad else "none with a known one"
        lines.append(f"requirements/{name}: {len(lock)} versions, {said}")
        lines += [f"  {pin.name} {pin.version}: {', '.join(known[pin[:2]])}" for pin in bad]
    return Finding(good and bool(locks), "\n".join(lines) or "no lock files")


def batches(wanted: Iterable[Pin]) -> Iterator[list[Pin]]:
    """All of them, no name twice in a batch: pip-audit takes one version of a package."""
    left = sorted(wanted)
    while left:
        batch = {pin.name: pin for pin in reversed(left)}
        yield sorted(batch.values())
        left = [pin for pin in left if batch[pin.name] != pin]


def advisories(batch: list[Pin], service: str) -> dict[tuple[str, str], list[str]]:
    """The names of the advisories on each.

    Raises:
        ConnectionError: the service is out of reach.
        ToolError: pip-audit did not say something of each.
    """
    with tempfile.TemporaryDirectory() as folder:
        lock, report = Path(folder, "lock.txt"), Path(folder, "report.json")
        lock.write_text(
            "".join(
                " ".join([f"{pin.name}=={pin.version}", *(f"--hash={h}" for h in pin.hashes)])
                + "\n"
                for pin in batch
            )
        )
        # Not strict, it calls green what it could not look up; without a report nothing was.
        done = run(
            *("pip-audit", "--strict", "--require-hashes", "--disable-pip"),
            *("--progress-spinner", "off", "--vulnerability-service", "osv", "--osv-url", service),
            *("--format", "json", "--output", str(report), "--requirement", str(lock)),
        )
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        if not report.exists():
            if OUT_OF_REACH.search(last):
                raise ConnectionError(last)
            raise ToolError(f"pip-audit: {last}")
        answers = json.loads(report.read_text())["dependencies"]
    found = {(a["name"], a["version"]): [v["id"] for v in a["vulns"]] for a in answers}
    missing = [pin.name for pin in batch if pin[:2] not in found]
    if missing:
        raise ToolError(f"pip-audit said nothing of {', '.join(missing)}")
    return found


def secrets(root: Path) -> Finding:
    """What looks like a secret in the files that git tracks, and is not in the baseline."""
    baseline = root / BASELINE
    if not baseline.exists():
        raise ToolError(f"{BASELINE} is missing")
    tracked = run("git", "ls-files", "-z", cwd=root).stdout.split("\0")[:-1]
    files = [name for name in tracked if (root / name).is_file() and name != BASELINE]
    with tempfile.TemporaryDirectory() as folder:
        # A copy: the tool writes the lines' new numbers into its baseline.
        copy = shutil.copy(baseline, folder)
        done = run(
            *("detect-secrets-hook", "--json", "--no-verify", "--baseline", str(copy), *files),
            cwd=root,
        )
    if done.returncode == 1 and done.stdout.startswith("{"):
        places = [
            f"  {file}:{secret['line_number']}: {secret['type']}"
            for file, found in json.loads(done.stdout)["results"].items()
            for secret in found
        ]
        head = f"FOUND in {len(files)} tracked files; if it is none: `# pragma: allowlist secret`"
        return Finding(False, "\n".join([head, *places]))
    if done.returncode not in (0, 3):  # 3: lines have moved
        raise ToolError(f"detect-secrets: {(done.stderr or done.stdout).strip()[-200:]}")
    return Finding(True, f"none in {len(files)} tracked files that {BASELINE} does not know")


def licences(served: Iterable[Pin], path: Path) -> Finding:
    """Writes what each installed package says of its licence."""
    done = run("pip-licenses", "--python", sys.executable, "--from", "mixed", "--format", "json")
    if done.returncode:
        raise ToolError(f"pip-licenses: {done.stderr.strip()[-200:]}")
    packages = json.loads(done.stdout)
    image = {pin.name for pin in served}
    lines = ["| package | version | licence | in the serving image |", "|---|---|---|---|"]
    for package in packages:
        name, licence = package["Name"], " ".join(package["License"].split())
        where = "yes" if canonical(name) in image else ""
        lines.append(f"| {name} | {package['Version']} | {licence} | {where} |")
    absent = sorted(image - {canonical(package["Name"]) for package in packages})
    lines += [f"| {name} | | not installed here | yes |" for name in absent]
    path.write_text("\n".join(lines) + "\n")
    unknown = sum(package["License"] == "UNKNOWN" for package in packages)
    said = f"; {unknown} do not say theirs" if unknown else ""
    if absent:
        said += f"; of the serving image not installed here: {', '.join(absent)}"
    return Finding(True, f"of {len(packages)} packages in build/audit/{path.name}{said}")


def canonical(name: str) -> str:
    """As packages are called where they are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def sbom(root: Path, locks: dict[str, list[Pin]], out: Path) -> Finding:
    """Writes a CycloneDX document for each lock, the same each time."""
    lines = []
    for name, lock in locks.items():
        path = out / Path(name).with_suffix(".cdx.json").name
        done = run(
            *("cyclonedx-py", "requirements", "--output-reproducible", "--of", "JSON"),
            *("--output-file", str(path), "--pyproject", str(root / "pyproject.toml")),
            str(root / "requirements" / name),
        )
        if done.returncode:
            raise ToolError(f"cyclonedx-py: {done.stderr.strip()[-200:]}")
        components = json.loads(path.read_text())["components"]
        if len(components) != len(lock):
            raise ToolError(f"{path.name} has {len(components)} of {len(lock)} versions")
        lines.append(f"{len(components)} components in build/audit/{path.name}")
    return Finding(bool(lines), "\n".join(lines) or "no lock files")


def run(program: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """What a program of this environment, or else of the system, prints."""
    beside = Path(sys.executable).parent / program
    found = str(beside) if beside.exists() else shutil.which(program)
    if found is None:
        raise ToolError(f"{program} is not installed")
    return subprocess.run(  # noqa: S603  names and arguments are ours
        [found, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


if __name__ == "__main__":
    sys.exit(main())
