"""A worker process: uvicorn with the application, and a graceful shutdown."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from pathlib import Path
from socket import socket
from types import FrameType

import uvicorn

from serve.app import Application, create_app
from serve.processes.http_protocol import Protocol
from serve.settings import Settings
from serve.telemetry import logs, metrics


class Server(uvicorn.Server):
    """uvicorn with a drain: after SIGTERM it is not ready but still answers, then it stops.

    So a load balancer sends requests elsewhere before any is refused.
    """

    def __init__(self, config: uvicorn.Config, app: Application, drain_seconds: float) -> None:
        super().__init__(config)
        self._service, self._drain = app.service, drain_seconds

    async def serve(self, sockets: list[socket] | None = None) -> None:
        """Answer until stopped."""
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal; called in the main thread at any point."""
        first = not self._service.stopping
        self._service.stopping = True
        if sig == signal.SIGTERM and first and self._drain:
            stop = super().handle_exit
            self._loop.call_soon_threadsafe(self._loop.call_later, self._drain, stop, sig, None)
        elif sig != signal.SIGTERM or self._drain == 0:
            super().handle_exit(sig, frame)


def main(settings: Settings, listener: socket, name: str, folder: Path, parent: int) -> None:
    """Answer on the socket until stopped, or until the process `parent` is gone.

    `name`: the worker's name in the `folder` of metrics.
    """
    logs.configure(settings)
    metrics.share(folder, name)
    app = create_app(settings, folder)

    async def look_after_parent() -> None:
        if os.getppid() != parent:
            server.should_exit = True

    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=Protocol,
        ws="websockets-sansio",
        ws_max_size=settings.max_image_bytes * 4 // 3 + 65536,
        ws_per_message_deflate=False,
        lifespan="on",
        log_config=None,
        access_log=False,  # AccessLog writes it
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        # Longer than a load balancer keeps its connections, or than this process may be held up.
        # When the time runs out, a request that has just arrived is lost unread.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=settings.shutdown_seconds,
        callback_notify=look_after_parent,
        timeout_notify=1,
    )
    server = Server(config, app, settings.drain_seconds)
    gc.freeze()  # garbage collections skip all objects that exist now
    server.run([listener])
