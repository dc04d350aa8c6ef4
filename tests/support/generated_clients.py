"""Clients generated from the service's OpenAPI document, as docs/API_CLIENTS.md says."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from support.documents import document
from support.manifests import ROOT, npm

COMPILED = "tsc --strict --target es2022 --module nodenext --types node client.mts"
IMPORTED = """
import importlib, pkgutil
from digits import api
for module in pkgutil.walk_packages(api.__path__, f"{api.__name__}."):
    importlib.import_module(module.name)
"""


def python(url):
    """The digit that the document's Python program prints; every operation must import too."""
    used = f"python -c '{IMPORTED}'; python client.py"
    return _printed(url, "openapi-python-client", "python", "client.py", used)


def typescript(url):
    """The digit that the document's TypeScript program prints; it must compile too."""
    compiled = f"{COMPILED}; node client.mjs"
    return _printed(url, "openapi-typescript", "ts", "client.mts", compiled, npm(""))


def _printed(url, generator, language, name, use, packages=None):
    """The first word of what the program prints, which uses what the generator wrote."""
    blocks = list(document("docs/API_CLIENTS.md").blocks())
    generate = next(each for each in blocks if each.language == "sh" and generator in each.code)
    program = next(each for each in blocks if each.language == language)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "docs").symlink_to(ROOT / "docs")
        if packages:
            (folder / "node_modules").symlink_to(packages)
        (folder / name).write_text(program.code.replace("http://127.0.0.1:8000", url))
        first = f"{Path(sys.executable).parent}:{folder}/node_modules/.bin"
        done = subprocess.run(
            ["bash", "-e"],
            input=f"{generate.code.replace('http://127.0.0.1:8000', url)}\n{use}",
            cwd=folder,
            env={**os.environ, "PATH": f"{first}:{os.environ['PATH']}", "no_proxy": "127.0.0.1"},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1].split()[0]
