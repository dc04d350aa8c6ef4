"""Clones of the working tree, to run DVC in as a user would."""

import copy
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).parents[2]


@cache
def tracked():
    """Every file of the working tree that is in git or would be."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return sorted(name for name in listed.split("\0") if name and (ROOT / name).exists())


class Clone:
    """A Git repository with files of the working tree."""

    def __init__(self, folder):
        self.folder = folder

    @property
    def environment(self):
        """This one's, with the tests' Python first and nothing of a surrounding DVC or MLflow."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("DVC_", "MLFLOW_", "MNIST_"))
        }
        here = Path(sys.executable).parent
        return {
            **inherited,
            "PATH": f"{here}:{os.environ['PATH']}",
            "GIT_CONFIG_GLOBAL": "/dev/null",
        }

    def start(self, *command, **environment):
        """The command as a running process; its output is one text."""
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *command, fails=False, **environment):
        """What the command prints; it must succeed, or fail if that is expected."""
        with self.start(*command, **environment) as process:
            try:
                output, _ = process.communicate(timeout=900)
            finally:
                process.kill()  # if the test is cut off
        assert (process.returncode != 0) == fails, (
            f"{command} ended with {process.returncode}:\n{output}"
        )
        return output

    def edit(self, name, old, new):
        """Replaces `old` in a file, where it must be."""
        path = self.folder / name
        text = path.read_text()
        assert old in text, f"{name} has no {old!r}"
        path.write_text(text.replace(old, new))

    def pick(self, name, value):
        """Picks another value in `params.yaml`, whatever it picks now."""
        path = self.folder / "params.yaml"
        text, places = re.subn(
            rf"^{name}: (\[.*?\]|\S+)", f"{name}: {value}", path.read_text(), flags=re.MULTILINE
        )
        assert places == 1, f"params.yaml picks no {name}"
        path.write_text(text)

    def commit(self, message):
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "--allow-empty", "-m", message)

    def read(self, name):
        return (self.folder / name).read_text()


def cloned(folder):
    """The working tree as it is, as a repository of its own."""
    for name in tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    clone = Clone(folder)
    clone.run("git", "init", "-q", "-b", "main")
    clone.run("git", "config", "user.name", "Test")
    clone.run("git", "config", "user.email", "test@localhost")
    clone.commit("as it is")
    return clone


def unbuilt(folder):
    """A clone in which nothing was built yet, also not by whoever recorded `dvc.lock`."""
    clone = cloned(folder)
    for recorded in ("dvc.lock", *(str(path) for path in clone.folder.glob("reports/*"))):
        (clone.folder / recorded).unlink(missing_ok=True)
    clone.commit("nothing built")
    return clone


def quick(clone):
    """The same with small networks and a likelihood of few steps and images."""
    clone.edit("pipeline/ood/score_network.py", "_STEPS, _BATCH = 2200,", "_STEPS, _BATCH = 200,")
    clone.edit("pipeline/ood/examples.py", "_EVALUATED = 300 ", "_EVALUATED = 20 ")
    clone.edit("conf/run/2.yaml", "filters: 64", "filters: 16")
    clone.edit("conf/run/3.yaml", "[[64], [64, 96]]", "[[16]]")
    clone.commit("quick")
    return clone


def copied(clone, folder):
    """A copy of the clone to work in, with its cache and its runs."""
    other = copy.copy(clone)
    other.folder = folder / "clone"
    shutil.copytree(clone.folder, other.folder, symlinks=True)
    return other


def shared_once(factory, name, make):
    """The folder that `make(folder)` made, once for all processes, and what it said."""
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # of the folders of all processes
    folder, said = shared / name, shared / f"{name}.txt"
    with FileLock(shared / f"{name}.lock"):
        if not said.exists():
            # Moved after it was made: MLflow in its copies knows the place where it was, and tests
            # go on to write there.
            making = factory.mktemp(f"{name}-made") / "made"
            output = make(making)
            making.rename(folder)
            said.write_text(output or "")
    return folder, said.read_text()


def made_once(factory, name, make):
    """A copy of the clone that `make(folder)` made, once for all processes, and what it said."""
    folder, output = shared_once(factory, name, make)
    clone = Clone(folder)
    clone.output = output
    return copied(clone, factory.mktemp(name))
