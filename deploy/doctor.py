"""Say what this machine lacks, and how to get it: `make doctor`.

It runs before anything is installed, also on a Python that is too old: standard library only.
Exit status: 0 if `make demo`, `make repro` and `make serve` can run, else 1.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Iterator, NamedTuple  # noqa: UP035 - Python 3.8 must be able to say its fault

ROOT = Path(__file__).resolve().parents[1]
GB = 10**9
ENVIRONMENT = 4 * GB  # .venv and what uv keeps meanwhile; .venv alone has 3.6
WORK = 1 * GB  # data, models, the DVC cache and reports of some sweeps
MEMORY = 4 * GB  # training run 2 takes 1.2, beside MLflow and a desktop
TIMEOUT = 5  # seconds for the answer of a mirror or of the package index
# Programs that only tests or containers need, and what goes without them.
OPTIONAL = {
    "docker": "make up and make image",
    "npm": "tests of clients in TypeScript",
    "chromium": "tests in a browser",
    "prometheus": "tests of alerts and dashboards",
    "postgres": "tests with PostgreSQL",
    "buildah": "make image-test",
    "wrk": "make bench-serve",
}


class Finding(NamedTuple):
    """What was looked at and found, and the fix if it is a fault; `needed` says how bad it is."""

    what: str
    found: str
    fix: str = ""
    needed: bool = True

    def __str__(self) -> str:
        """Return one line, and the fix on a second one."""
        mark = "ok" if not self.fix else "FIX" if self.needed else "note"
        line = f"{mark:<4} {self.what:<12} {self.found}"
        return f"{line}\n     -> {self.fix}" if self.fix else line


def main() -> int:
    """Print all findings; return the exit status."""
    faults = 0
    for finding in findings():
        print(finding, flush=True)
        faults += bool(finding.fix) and finding.needed
    return 1 if faults else 0


def findings() -> Iterator[Finding]:
    """Look at one thing after the other."""
    installed = (ROOT / ".venv/dev.installed").exists()
    found = system(platform.system(), platform.machine())
    yield found
    if found.fix:
        return
    yield python(sys.version_info[:2])
    yield venv()
    yield from git()
    yield environment(installed)
    yield disk(shutil.disk_usage(ROOT).free, installed)
    yield memory(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    if not installed:
        yield index()
    yield mnist()
    yield port(int(os.environ.get("API_PORT", "8000")))
    yield optional()


def system(name: str, machine: str) -> Finding:
    """Check the operating system."""
    found = f"{name} on {machine}"
    if name == "Linux" or (name, machine) == ("Darwin", "arm64"):
        return Finding("system", found)
    fix = "use WSL 2 (wsl --install), and clone inside it" if name == "Windows" else "use Linux"
    return Finding("system", found, fix)


def python(version: tuple[int, int]) -> Finding:
    """Check the version of Python."""
    found = f"{version[0]}.{version[1]}, {sys.executable}"
    if (3, 11) <= version <= (3, 13):
        return Finding("Python", found)
    return Finding("Python", found, "install Python 3.11 to 3.13, then make PYTHON=python3.12 …")


def venv() -> Finding:
    """Check that environments can be made; Debian has that in a package of its own."""
    if importlib.util.find_spec("ensurepip"):
        return Finding("venv", "can make environments")
    return Finding("venv", "ensurepip is missing", "on Debian: apt-get install python3-venv")


def git() -> Iterator[Finding]:
    """Check Git, the clone and the name of who commits."""
    if not shutil.which("git"):
        yield Finding("Git", "is missing", "install it: apt-get install git")
        return
    if _git("rev-parse", "--is-inside-work-tree") != "true":
        yield Finding("Git", "this folder is no clone", "an archive is not enough: git clone")
        return
    yield Finding("Git", _git("--version"))
    if _git("rev-parse", "--is-shallow-repository") == "true":
        yield Finding("clone", "is shallow: DVC saves no experiments", "git fetch --unshallow")
    if not (_git("config", "user.name") and _git("config", "user.email")):
        fix = "git config --global user.name 'You'; the same with user.email"
        yield Finding("name", "Git does not know you; experiments need it", fix, needed=False)


def _git(*words: str) -> str:
    done = subprocess.run(  # noqa: S603
        ["git", *words],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()


def environment(installed: bool) -> Finding:
    """Check .venv."""
    if installed:
        return Finding("environment", "in .venv")
    return Finding("environment", "not installed yet", "make setup", needed=False)


def disk(free: int, installed: bool) -> Finding:
    """Check the free space, in bytes, where the clone is."""
    wanted = WORK if installed else WORK + ENVIRONMENT
    found = f"{free / GB:.0f} GB free"
    if free >= wanted:
        return Finding("disk", found)
    return Finding("disk", found, f"make room: {wanted / GB:.0f} GB are needed")


def memory(total: int) -> Finding:
    """Check the memory, in bytes."""
    found = f"{total / GB:.0f} GB"
    if total >= MEMORY:
        return Finding("memory", found)
    return Finding("memory", found, f"training wants {MEMORY / GB:.0f} GB", needed=False)


def index() -> Finding:
    """Check that pip finds packages, as it is set up here."""
    if not importlib.util.find_spec("pip"):
        return Finding("packages", "not looked for: this Python has no pip; that of .venv will")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "index", "versions", "uv"], capture_output=True, check=False
    )
    if done.returncode == 0:
        return Finding("packages", "pip reaches its index")
    return Finding("packages", "pip finds none", "check network and proxy, and: pip config list")


def mnist() -> Finding:
    """Check that MNIST is here, or that a mirror answers."""
    if (ROOT / "data/raw/mnist").exists():
        return Finding("MNIST", "in data/raw/mnist")
    text = (ROOT / "conf/data/mnist.yaml").read_text(encoding="utf-8")
    for mirror in re.findall(r"^  - (\S+)$", text.partition("\nmirrors:\n")[2], re.MULTILINE):
        if _answers(mirror):
            return Finding("MNIST", f"can be had from {mirror}")
    fix = "make demo needs none; else put its four files into ../shared/mnist"
    return Finding("MNIST", "no mirror answers", fix)


def _answers(mirror: str) -> bool:
    if "://" not in mirror:
        return (ROOT / mirror).is_dir()
    file = mirror if mirror.endswith(".npz") else f"{mirror}t10k-labels-idx1-ubyte.gz"
    with contextlib.suppress(OSError):
        request = urllib.request.Request(file, method="HEAD")  # noqa: S310 - ours, all https
        with urllib.request.urlopen(request, timeout=TIMEOUT):  # noqa: S310
            return True
    return False


def port(number: int) -> Finding:
    """Check that the service could listen."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", number))
        except OSError as error:
            fix = f"API_PORT={number + 1} make serve, or stop what listens there"
            return Finding(f"port {number}", error.strerror or str(error), fix)
    return Finding(f"port {number}", "is free")


def optional() -> Finding:
    """Name the programs without which some tests are skipped."""
    missing = [f"{name} ({use})" for name, use in OPTIONAL.items() if not shutil.which(name)]
    if not missing:
        return Finding("programs", "all that tests and containers use")
    fix = "make system installs what tests use, on Debian as root"
    return Finding("programs", "missing: " + ",\n     ".join(missing), fix, needed=False)


if __name__ == "__main__":
    sys.exit(main())
