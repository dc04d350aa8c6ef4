"""The puller: the process that follows the registry, and takes little memory while it waits.

MLflow is imported by a process of its own, which brings a version and ends. At the next poll a
`look` tells whether another one is needed.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from serve.models import bundle_cache
from serve.models.registry_look import look
from serve.models.registry_sync import DEATHS, RegistrySync, jittered
from serve.settings import Settings
from serve.telemetry import logs, metrics

Wait = Callable[[float], None]  # so many seconds

_FORK = multiprocessing.get_context("fork")


class Puller:
    """Follow a registered model by alias, or bring one fixed version of it.

    `bring`: returns once the version that `MODEL_URI` means now is in service.
    """

    def __init__(self, settings: Settings, bring: Callable[[], None], wait: Wait) -> None:
        assert settings.registered
        self._name, self._alias = settings.registered.group("name", "alias")
        self._uri, self._poll = settings.mlflow_tracking_uri, settings.model_poll_seconds
        self._cache = bundle_cache.open_cache(settings)
        self._bring, self._wait = bring, wait

    def run(self) -> None:
        """Poll the registry; return after a success if polling is off or the version is fixed."""
        seen = None
        while self._alias and self._poll:
            now = look(self._uri, self._name, self._alias)  # before it is brought: it may move
            if now is None or now != seen or not self._stays():
                self._bring()
            seen = now
            self._wait(jittered(self._poll))
        self._bring()

    def _stays(self) -> bool:
        """Record that the version in service is the newest, unless its copy is corrupt."""
        with suppress(OSError), self._cache.lock():
            pointer = self._cache.pointer()
            if pointer and self._cache.is_intact(pointer.current):
                self._cache.set_failure("")
                self._cache.set_checked()
                return True
        return False


def main(
    settings: Settings, name: str, metrics_folder: Path, parent: int, beat: Callable[[], None]
) -> None:
    """Follow the registry until stopped, or until the process `parent` is gone.

    `name`: the puller's name in the folder of metrics. `beat` is called between two checks.
    """
    logs.configure(settings)
    metrics.share(metrics_folder, name)
    count = metrics.Metrics().reloaded
    outcome = dict(DEATHS.values()).get(bundle_cache.open_cache(settings).failure())
    if outcome:
        count(outcome)
    signal.signal(signal.SIGTERM, _end)  # it ends its own process first
    bring = partial(_brought_by_mlflow, settings, count, parent, beat)
    Puller(settings, bring, partial(_wait, parent, beat)).run()


def _end(*_: object) -> None:
    raise SystemExit


def _wait(parent: int, beat: Callable[[], None], seconds: float) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        beat()
        if os.getppid() != parent:
            raise SystemExit
        time.sleep(min(left, 1))


def _brought_by_mlflow(
    settings: Settings, count: Callable[[str], None], parent: int, beat: Callable[[], None]
) -> None:
    """Bring the version in a process of its own, and count what that tells.

    If it dies this process does, too.
    """
    outcomes, told = _FORK.Pipe(duplex=False)
    process = _FORK.Process(target=_import_and_bring, args=(settings, told, os.getpid(), beat))
    process.start()
    told.close()
    try:
        with suppress(EOFError):
            while True:
                if outcomes.poll(1):
                    count(outcomes.recv())
                if os.getppid() != parent:
                    raise SystemExit
        process.join()
        if process.exitcode:
            raise SystemExit(1)
    finally:
        process.kill()
        process.join()


def _import_and_bring(
    settings: Settings, told: Connection, parent: int, beat: Callable[[], None]
) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=[parent], daemon=True).start()
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # our own loop retries
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    RegistrySync(settings, told.send).bring(partial(_wait, parent, beat))


def _end_with(parent: int) -> None:
    """End this process when its parent is killed, also while it hangs."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
