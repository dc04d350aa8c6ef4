"""A small real file system, a tmpfs in a mount namespace of its own, that a test can fill up."""

import itertools
import os
import subprocess
from pathlib import Path

import pytest

from support.service_process import ROOT

_MOUNT = 'mount -t tmpfs -o size="$1"m,nr_inodes=4k tmpfs "$0" && echo mounted && exec cat'


class SmallDisk:
    """So many MB at `folder` for the processes that start behind `enter`; it ends with `close`.

    It takes 4,096 files.
    """

    def __init__(self, folder, size=24):
        folder.mkdir()
        apart = ["unshare", "--map-root-user", "--mount", "sh", "-c", _MOUNT, folder, str(size)]
        pipe = subprocess.PIPE
        self._holder = subprocess.Popen(apart, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        mounted = self._holder.stdout.readline()
        if not mounted:
            reason = f"this system lets no user mount a file system: {self._holder.stderr.read()}"
            (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
        pid = self._holder.pid
        self.enter = ("nsenter", f"--target={pid}", "--user", "--preserve-credentials", "--mount")
        self.enter += (f"--wd={ROOT}",)
        self.path = Path(f"/proc/{pid}/root{folder}")  # the folder, for processes outside
        self._filler = self.path / "filler"

    def fill(self):
        """Leaves not a byte."""
        with self._filler.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(65536))
            except OSError:
                pass
        assert self.free() == 0

    def fill_files(self):
        """Leaves room for no file, but for bytes."""
        try:
            for number in itertools.count():
                (self.path / f"filler-{number}").touch()
        except OSError:
            pass

    def free(self):
        """Bytes that can be written."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def empty(self):
        """Removes what filled it."""
        self._filler.unlink()

    def close(self):
        """Ends the process that holds the mount."""
        self._holder.communicate()
