"""Wait for evidence, look at processes, and run Python."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def until(evidence, what, seconds=300):
    """The evidence once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := evidence()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)
    return found


def is_running(pid):
    """Whether the process lives; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def megabytes(pid, name="VmRSS"):
    """The memory of a process that is resident, or that was at most: VmHWM."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE)[1]) / 1024


def python(*arguments, env=os.environ, **options):
    """What Python did, which finds the repository's packages in any folder."""
    return subprocess.run(
        [sys.executable, *arguments],
        **{"capture_output": True, "text": True, "timeout": 300, **options},
        env={**env, "PYTHONPATH": str(ROOT)},
    )


def refused(module, *arguments):
    """What a program of ours that ends with an error says, without a traceback."""
    # Under coverage's tracing Hydra believes that it is debugged, and shows tracebacks.
    untraced = {name: v for name, v in os.environ.items() if not name.startswith("COV")}
    done = python("-m", module, *arguments, env=untraced)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr
