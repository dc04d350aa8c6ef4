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
from serve.models.bundle_cache import BundleCache
from serve.models.registry_look import look
from serve.models.registry_sync import DEATHS, bring, jittered
from serve.settings import Settings
from serve.sources import Source
from serve.telemetry import logs, metrics

Wait = Callable[[float], None]  # so many seconds

_FORK = multiprocessing.get_context("fork")


class Puller:
    """Follow the registered models, each by its alias, or bring one fixed version of it.

    `bring`: returns once the versions that the settings mean now are in service.
    """

    def __init__(self, settings: Settings, bring: Callable[[], None], wait: Wait) -> None:
        self._uri, self._poll = settings.mlflow_tracking_uri, settings.model_poll_seconds
        self._followed = [
            (source, bundle_cache.open_cache(settings, source)) for source in settings.followed
        ]
        self._bring, self._wait = bring, wait

    def run(self) -> None:
        """Poll the registry; return after a success if polling is off or all versions are fixed."""
        seen: list[str | None] = [None] * len(self._followed)
        while self._poll and any(source.moves for source, _ in self._followed):
            # Before they are brought: they may move.
            now = [self._look(source) for source, _ in self._followed]
            pairs = zip(seen, now, self._followed, strict=True)
            stay = [self._stays(before, after, cache) for before, after, (_, cache) in pairs]
            if not all(stay):
                self._bring()
            seen = now
            self._wait(jittered(self._poll))
        self._bring()

    def _look(self, source: Source) -> str | None:
        """Return what the registry says of the alias, as `look`; a fixed version is the same."""
        assert source.registered
        name, alias = source.registered.group("name", "alias")
        return look(self._uri, name, alias) if alias else source.uri

    def _stays(self, seen: str | None, now: str | None, cache: BundleCache) -> bool:
        """Record that the version in service is the newest, unless its copy is corrupt."""
        if now is None or now != seen:
            return False
        with suppress(OSError), cache.lock():
            pointer = cache.pointer()
            if pointer and cache.is_intact(pointer.current):
                cache.set_failure("")
                cache.set_checked()
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
    failures = {bundle_cache.open_cache(settings, each).failure() for each in settings.followed}
    for said, outcome in DEATHS.values():
        if said in failures:
            count(outcome)
    signal.signal(signal.SIGTERM, _end)  # it ends its own process first
    brought = partial(_brought_by_mlflow, settings, count, parent, beat)
    Puller(settings, brought, partial(_wait, parent, beat)).run()


def _end(*_: object) -> None:
    raise SystemExit


def _wait(parent: int, beat: Callable[[], None], seconds: float) -> None:
    beat()
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        beat()
        if os.getppid() != parent:
            raise SystemExit
        time.sleep(min(left, 1))


def _brought_by_mlflow(
    settings: Settings, count: Callable[[str], None], parent: int, beat: Callable[[], None]
) -> None:
    """Bring the versions in a process of its own, and count what that tells.

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
    bring(settings, told.send, partial(_wait, parent, beat))


def _end_with(parent: int) -> None:
    """End this process when its parent is killed, also while it hangs."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
