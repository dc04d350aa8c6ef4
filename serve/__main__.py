"""`python -m serve`: the service, as the environment says (see `serve.settings`)."""

import fcntl
import gc
import logging
import os
import socket
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

# One thread each: the processes are the parallelism. Before NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from serve import settings as environment
from serve.models import puller, registry_sync
from serve.processes import worker
from serve.processes.supervisor import Child, Supervisor
from serve.settings import Settings, SettingsError
from serve.telemetry import logs, metrics

logger = logging.getLogger("serve")


def main() -> None:
    """Serve until stopped."""
    os.umask(0o077)  # STATE_DIR holds callers' pictures
    try:
        settings = environment.load()
        _claim(settings)
        listener = _listener(settings)
        folder = settings.state_dir.resolve() / "metrics"  # in which the processes count
        folder.mkdir(exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
    except (SettingsError, OSError) as error:
        sys.exit(f"error: {error}")
    logs.configure(settings)
    alone = settings.rate_limit and settings.rate_limit_storage == "memory://"
    if alone and settings.api_workers > 1:
        logger.warning(
            "RATE_LIMIT is counted by each of %d workers alone, so callers may call up to that"
            " many times as often: set RATE_LIMIT_STORAGE=redis://… or API_WORKERS=1",
            settings.api_workers,
        )
    if not settings.api_keys and settings.api_host not in ("127.0.0.1", "::1", "localhost"):
        logger.warning("API_KEYS is empty: whoever reaches %s may call", settings.api_host)
    children = _children(settings, listener, folder)
    host, port = listener.getsockname()[:2]
    served = ", ".join(source.uri for source in settings.sources)
    logger.info("serving %s on http://%s:%s", served, host, port)
    gc.freeze()
    Supervisor(children, settings.drain_seconds + settings.shutdown_seconds + 2).run()


def _children(settings: Settings, listener: socket.socket, folder: Path) -> list[Child]:
    """Return the workers and, if a registry is followed, the puller; they count in the folder."""
    parent = os.getpid()  # a child may start when its parent is gone already
    metrics.share(folder, "supervisor")
    restarted = metrics.Metrics().restarted

    def died(name: str, reason: str) -> None:
        metrics.forget(folder, name)
        restarted(name.partition("-")[0], reason)
        if name == "puller":
            registry_sync.record_death(settings, reason)

    children = []
    for name in (f"worker-{place}" for place in range(settings.api_workers)):
        work = partial(worker.main, settings, listener, name, folder, parent)
        children.append(Child(name, work, partial(died, name), settings.hang_seconds))
    if settings.followed:
        work = partial(puller.main, settings, "puller", folder, parent)
        children.append(Child("puller", work, partial(died, "puller"), settings.pull_seconds))
    return children


def _claim(settings: Settings) -> None:
    """Lock `STATE_DIR` against other services until this process ends."""
    for source in settings.sources:
        if not source.registered and not Path(source.uri).is_dir():
            raise SettingsError(
                f"{source.variable}={source.uri} is neither a folder nor models:/NAME@ALIAS"
            )
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    lock = os.open(settings.state_dir / "serve.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(lock, 20).decode(errors="replace").strip()
        raise SettingsError(
            f"STATE_DIR={settings.state_dir} is in use by process {holder}:"
            " set another STATE_DIR, or stop that process"
        ) from None
    os.truncate(lock, 0)
    with suppress(OSError):  # a full disk
        os.write(lock, b"%d\n" % os.getpid())
    # A child that outlives this process must not hold the lock for it.
    os.register_at_fork(after_in_child=partial(os.close, lock))


def _listener(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.api_host else socket.AF_INET
    try:
        return socket.create_server(
            (settings.api_host, settings.api_port), family=family, backlog=2048
        )
    except OSError as error:
        where = f"{settings.api_host}:{settings.api_port}"
        raise OSError(f"cannot listen on {where} (API_HOST, API_PORT): {error}") from error


if __name__ == "__main__":
    main()
