"""Load test with wrk, and the server's processor time and memory."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple


class Result(NamedTuple):
    count: int  # requests
    rate: float  # requests per second
    p99_ms: float
    processor_us: float  # of the server, per request
    failed: int


def script(body: bytes, content_type: str) -> Path:
    """Write a script that makes wrk post the body."""
    folder = Path(tempfile.mkdtemp(prefix="wrk-"))
    (folder / "body").write_bytes(body)
    (folder / "post.lua").write_text(
        f'local file = io.open({json.dumps(str(folder / "body"))}, "rb")\n'
        'wrk.method, wrk.body = "POST", file:read("*a")\n'
        f'wrk.headers["Content-Type"] = "{content_type}"\n'
    )
    return folder / "post.lua"


def put(
    server: subprocess.Popen[bytes], url: str, lua: Path, seconds: int, connections: int
) -> Result:
    """Send load to the server for some seconds; return the measurements."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "30s"]
    before = processor(server.pid)
    done = subprocess.run(
        [*command, "-s", str(lua), url], capture_output=True, text=True, check=True
    )
    used = processor(server.pid) - before
    _await_rest(server.pid)
    text = done.stdout
    count = int(re.search(r"(\d+) requests in", text)[1])  # type: ignore[index]
    number, unit = re.search(r"99%\s+([\d.]+)(us|ms|s|m)", text).groups()  # type: ignore[union-attr]
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    return Result(
        count,
        float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1]),  # type: ignore[index]
        float(number) * {"us": 0.001, "ms": 1, "s": 1000, "m": 60000}[unit],
        used / max(count, 1) * 1e6,
        int(failed[1]) if failed else 0,
    )


def _await_rest(pid: int) -> None:
    """Wait until a slow server has finished abandoned requests, before the next measurement."""
    before = -1.0
    while processor(pid) > before + 0.01:
        before = processor(pid)
        time.sleep(0.3)


def family(pid: int) -> list[int]:
    """Return the ids of the process and all its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in family(int(child)))]


def processor(pid: int) -> float:
    """Return the seconds of processor time that the family has used."""
    total = 0
    for one in family(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / 100


def memory(pid: int) -> float:
    """Return the resident MB of the largest process of the family."""
    return max(
        int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{one}/status").read_text())[1]) / 1024  # type: ignore[index]
        for one in family(pid)
    )


def started(
    command: list[str], url: str, log: Path, **environment: str
) -> tuple[subprocess.Popen[bytes], float]:
    """Start the server; return it once it answers, and the seconds that took."""
    import os

    began = time.monotonic()
    with log.open("ab") as file:
        server = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=file, stderr=file
        )
    while True:
        try:
            urllib.request.urlopen(url, timeout=5)  # noqa: S310 - our own address
        except urllib.error.HTTPError as error:
            if error.code != 503:
                break
        except OSError:
            pass
        else:
            break
        if server.poll() is not None:
            sys.exit(f"{command} failed: see {log}")
        time.sleep(0.02)
    return server, time.monotonic() - began
