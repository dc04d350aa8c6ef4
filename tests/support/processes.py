"""Wait for evidence and look at processes."""

import time
from pathlib import Path


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
    except FileNotFoundError:
        return False
    return state != "Z"
