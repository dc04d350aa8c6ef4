"""Runs the images as a deployment does, and checks what users rely on: see verify.sh.

check.py BASE REGISTERED BAKED TRAINER BUNDLE OTHER: four images, and two folders with models.
Prints what holds, with its figure, and ends with 1 at the first that does not.
"""

import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from support.mlflow_registry import Registry, await_server, server  # noqa: E402  needs the path

from pipeline.registry.versions import PROMOTED  # noqa: E402

PORT, REGISTRY_PORT = 18080, 15000
SEVEN = (ROOT / "docs" / "images" / "seven.png").read_bytes()
HARDENED = [
    *("--network", "host", "--read-only", "--tmpfs", "/tmp"),  # noqa: S108  the container's
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
]
LARGEST = 250e6  # bytes over the base
READY_SECONDS = 120  # a bound against hanging, not a promise: machines differ
GRACE_SECONDS = 15
CONNECTIONS = 16
FORBIDDEN = [
    *("tensorflow", "keras", "dvc", "hydra", "matplotlib"),
    *("pip", "gcc", "cc", "curl", "wget"),
]


def podman(*arguments):
    done = subprocess.run(["podman", *arguments], capture_output=True, text=True)
    assert not done.returncode, f"podman {' '.join(arguments)}:\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


def holds(what, figure=""):
    print(f"ok  {what}{': ' if figure else ''}{figure}", flush=True)


def ask(method, path, body=None, timeout=10.0):
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=timeout)
    try:
        connection.request(method, path, body, {"Content-Type": "image/png"} if body else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def predicted():
    status, body = ask("POST", "/predict", SEVEN)
    assert status == 200, body
    return json.loads(body)


def is_ready():
    try:
        return ask("GET", "/health/ready", timeout=2)[0] == 200
    except OSError:
        return False


def until(condition, seconds, what):
    """The seconds until the condition came true."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"not within {seconds} s: {what}"
        time.sleep(0.05)
    return time.monotonic() - began


@contextmanager
def container(image, **environment):
    """A running container; its log is shown if something does not hold."""
    given = {"API_HOST": "127.0.0.1", "API_PORT": PORT, **environment}
    variables = [part for name, value in given.items() for part in ("-e", f"{name}={value}")]
    name = podman("run", "--detach", "--pull=never", *HARDENED, *variables, image)
    try:
        yield name
    except BaseException:
        subprocess.run(["podman", "logs", name], stdout=sys.stderr, check=False)
        raise
    finally:
        podman("rm", "--force", "--volumes", name)


@contextmanager
def started(image, **environment):
    """A container that is ready, and the seconds that this took."""
    with container(image, **environment) as name:
        yield name, until(is_ready, READY_SECONDS, "ready")


def in_workspace(image, script, **environment):
    """What the script prints in the trainer's image, confined as its jobs on Kubernetes are."""
    given = {"HOME": "/tmp", "DVC_SITE_CACHE_DIR": "/tmp/dvc", "MPLCONFIGDIR": "/tmp"}  # noqa: S108
    variables = [part for pair in (given | environment).items() for part in ("-e", "=".join(pair))]
    writable = [part for folder in ("/workspace", "/report") for part in ("--tmpfs", folder)]
    copied = f"exec 2>&1; cp -R /work /workspace/digits; cd /workspace/digits\n{script}"
    command = ("run", "--rm", "--pull=never", *HARDENED, *writable, *variables, image)
    return podman(*command, "sh", "-exc", copied)


def size(image):
    return int(podman("image", "inspect", "--format", "{{.Size}}", image))


def check_size(base, image):
    grown = size(image) - size(base)
    assert grown < LARGEST, f"{grown / 1e6:.0f} MB over its base"
    holds("size over its base", f"{grown / 1e6:.0f} MB, at most {LARGEST / 1e6:.0f}")


def check_labels(image):
    (described,) = json.loads(podman("image", "inspect", image))
    settings = described["Config"]
    assert settings.get("User") == "1000", settings
    version = settings["Labels"]["org.opencontainers.image.version"]
    commit = settings["Labels"]["org.opencontainers.image.revision"]
    assert f'version = "{version}"' in (ROOT / "pyproject.toml").read_text()
    assert commit == subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=ROOT, text=True)[:-1]
    holds("user 1000, labels", f"{version}, {commit[:7]}")


def check_confined(name):
    """What is in it, and where it may write."""
    script = f"""
import importlib.util, os, shutil
assert os.getuid() == 1000
found = [one for one in {FORBIDDEN} if importlib.util.find_spec(one) and one != "pip"
         or shutil.which(one, path="/opt/venv/bin:/usr/bin:/bin")]
assert not found, found
for folder in ("/", "/app", "/app/serve", "/opt/venv", "/usr/local", "/etc", "/var"):
    try:
        open(os.path.join(folder, "written"), "w")
    except OSError:
        continue
    raise SystemExit(f"can write to {{folder}}")
open("/state/written", "w").close(); os.remove("/state/written")
"""
    podman("exec", name, "python", "-c", script)
    podman("healthcheck", "run", name)
    holds("not root, writes to its volume alone, health check passes")


def check_trainer(image, registry):
    """What its jobs do, but for training: the service and the registry are up."""
    began = time.monotonic()
    script = f"""
test "$(id -u)" = 1000
test -z "$(git status --porcelain)"
dvc status > /tmp/status
grep -q fetch /tmp/status
python -m pipeline.fetch data=digits
test -n "$(ls data/raw/digits)"
python -m monitoring.drift --url http://127.0.0.1:{PORT} --out /report
python -m pipeline.retrain --check --drift /report/drift.json
! touch /work/written
"""
    said = in_workspace(image, script, MLFLOW_TRACKING_URI=registry.uri)
    assert "There is no reason to train a new model." in said, said
    seconds = time.monotonic() - began
    holds("trainer: Git, DVC, fetch, drift and the reasons to train", f"{seconds:.0f} s")


def check_registered(image, trainer, bundle, other):
    folder = Path(tempfile.mkdtemp(prefix="mlflow-"))
    uri = f"http://127.0.0.1:{REGISTRY_PORT}"
    running = server(folder, REGISTRY_PORT)
    try:
        await_server(uri)
        registry = Registry(uri)
        first, second = (
            registry.register(each, **{PROMOTED: f"2026-01-0{day}T00:00:00+00:00"})
            for day, each in enumerate((bundle, other), 1)
        )
        registry.promote(first)
        given = {"MLFLOW_TRACKING_URI": uri, "MODEL_POLL_SECONDS": 0.5}
        with started(image, **given) as (name, seconds):
            holds("ready with a model from the registry", f"{seconds:.1f} s")
            answer = predicted()
            assert (answer["prediction"], answer["model_version"]) == (7, first), answer
            holds("reads a 7 with the champion", f"version {first}")
            check_confined(name)
            check_trainer(trainer, registry)
            registry.promote(second)
            moved = until(lambda: predicted()["model_version"] == second, 20, "the alias")
            assert predicted()["prediction"] == 7
            holds("follows a moved alias", f"{moved:.1f} s")
            rollback = "python -m pipeline.register --rollback"
            in_workspace(trainer, rollback, MLFLOW_TRACKING_URI=uri)
            until(lambda: predicted()["model_version"] == first, 20, "the alias, back")
            holds("goes back to the model before, by the trainer", f"version {first}")
            check_stop_under_load(name)
    finally:
        os.killpg(running.pid, 9)
        running.wait()


def check_stop_under_load(name):
    """As behind a balancer: nothing new is sent to what is not ready, and no request fails."""
    leave, done, failed = threading.Event(), [], []

    def load():
        while not leave.is_set():
            try:
                status, body = ask("POST", "/predict", SEVEN)
                done.append(status)
                if status != 200:
                    failed.append(body)
            except OSError as error:
                failed.append(error)

    def balance():
        while is_ready():
            time.sleep(0.1)
        leave.set()

    threads = [threading.Thread(target=load) for _ in range(CONNECTIONS)]
    threads.append(threading.Thread(target=balance))
    for thread in threads:
        thread.start()
    time.sleep(2)
    before, began = len(done), time.monotonic()
    podman("stop", "--time", str(GRACE_SECONDS), name)
    seconds = time.monotonic() - began
    for thread in threads:
        thread.join()
    code = podman("inspect", "--format", "{{.State.ExitCode}}", name)
    assert code == "0", f"exit code {code}"
    assert seconds < GRACE_SECONDS, f"stopped after {seconds:.1f} s"
    assert not failed, f"{len(failed)} of {len(done)} failed: {failed[0]!r}"
    assert before > CONNECTIONS, before
    holds(f"stops under load of {CONNECTIONS}", f"{seconds:.1f} s, none of {len(done)} failed")


def check_baked(image):
    with started(image) as (name, seconds):
        assert predicted()["prediction"] == 7
        holds("ready with a model baked in", f"{seconds:.1f} s")
        check_confined(name)


def main():
    base, registered, baked, trainer, *bundles = sys.argv[1:]
    bundle, other = map(Path, bundles)
    check_size(base, registered)
    check_labels(registered)
    check_labels(trainer)
    check_baked(baked)
    check_registered(registered, trainer, bundle, other)


if __name__ == "__main__":
    main()
