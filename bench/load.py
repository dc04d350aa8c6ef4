"""Load test with wrk, and the server's processor time and memory."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

import psutil


class Result(NamedTuple):
    requests: int
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


def put(server: psutil.Popen, url: str, lua: Path, seconds: int, connections: int) -> Result:
    """Send load to the server for some seconds; return the measurements."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "30s"]
    before = processor(server)
    text = subprocess.check_output([*command, "-s", str(lua), url], text=True)
    used = processor(server) - before
    _await_rest(server)

    def found(pattern: str) -> str:
        match = re.search(pattern, text)
        return match[1] if match else "0"

    count = int(found(r"(\d+) requests in"))
    unit = {"us": 0.001, "ms": 1, "s": 1000, "m": 60000}[found(r"99%\s+[\d.]+(us|ms|s|m)")]
    return Result(
        count,
        float(found(r"Requests/sec:\s+([\d.]+)")),
        float(found(r"99%\s+([\d.]+)")) * unit,
        used / max(count, 1) * 1e6,
        int(found(r"Non-2xx or 3xx responses: (\d+)")),
    )


def _await_rest(server: psutil.Popen) -> None:
    """Wait until a slow server has finished abandoned requests, before the next measurement."""
    before = -1.0
    while processor(server) > before + 0.01:
        before = processor(server)
        time.sleep(0.3)


def family(server: psutil.Popen) -> list[psutil.Process]:
    """Return the process and all its descendants."""
    return [server, *server.children(recursive=True)]


def processor(server: psutil.Popen) -> float:
    """Return the seconds of processor time that the family has used."""
    times = [process.cpu_times() for process in family(server)]
    return float(sum(each.user + each.system for each in times))


def memory(server: psutil.Popen) -> float:
    """Return the resident MB of the largest process of the family."""
    largest: int = max(process.memory_info().rss for process in family(server))
    return largest / 2**20


def started(
    command: list[str], url: str, log: Path, **environment: str
) -> tuple[psutil.Popen, float]:
    """Start the server; return it once it answers, and the seconds that took."""
    began = time.monotonic()
    with log.open("ab") as file:
        variables = {**os.environ, **environment}
        server = psutil.Popen(command, env=variables, stdout=file, stderr=file)
    while not _answers(url):
        if server.poll() is not None:
            sys.exit(f"{command} failed: see {log}")
        time.sleep(0.02)
    return server, time.monotonic() - began


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5)  # noqa: S310 - our own address
    except urllib.error.HTTPError as error:
        return error.code != 503
    except OSError:
        return False
    return True
