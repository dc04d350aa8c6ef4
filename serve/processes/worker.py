"""A worker process: uvicorn with the application, and a graceful shutdown."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from socket import socket
from types import FrameType
from typing import cast

import uvicorn

from serve.app import Application, create_app
from serve.processes.connections import Connections, allow_files
from serve.processes.http_protocol import KEEP_ALIVE_SECONDS, HttpProtocol, WebSocketProtocol
from serve.processes.proxies import TrustedHosts, behind
from serve.settings import Settings
from serve.telemetry import logs, metrics


class Server(uvicorn.Server):
    """uvicorn with a drain: after SIGTERM it is not ready but still answers, then it stops.

    So a load balancer sends requests elsewhere before any is refused.
    """

    def __init__(
        self, config: uvicorn.Config, app: Application, each_second: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._service, self._each_second = app.service, each_second

    async def serve(self, sockets: list[socket] | None = None) -> None:
        """Answer until stopped."""
        self._loop = asyncio.get_running_loop()
        ticks = asyncio.create_task(self._tick())
        await super().serve(sockets)
        ticks.cancel()

    async def _tick(self) -> None:
        while True:  # also while it stops, which uvicorn's `callback_notify` does not
            self._each_second()
            await asyncio.sleep(1)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal; called in the main thread at any point."""
        if sig == signal.SIGTERM and not self._service.stopping:  # SIGINT is for the parent
            self._service.stopping = True
            drain, stop = self._service.settings.drain_seconds, super().handle_exit
            self._loop.call_soon_threadsafe(self._loop.call_later, drain, stop, sig, None)

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Refuse connections, and end when the requests in flight have."""
        self._loop.call_later(self._service.settings.shutdown_seconds, self._cut)
        await super().shutdown(sockets)

    def _cut(self) -> None:
        """Cancel the requests that are left: `errors.Answers` answers them with 503."""
        for task in self.server_state.tasks:
            task.cancel()


def main(
    settings: Settings,
    listener: socket,
    name: str,
    folder: Path,
    parent: int,
    beat: Callable[[], None],
) -> None:
    """Answer on the socket until stopped, or until the process `parent` is gone.

    `name`: the worker's name in the `folder` of metrics. `beat` is called each second.
    """
    logs.configure(settings)
    metrics.share(folder, name)
    app = create_app(settings, folder)

    proxies = TrustedHosts(settings.trusted_proxies)
    connections = Connections(settings, app.service.metrics, proxies, app.bodies)
    allow_files(settings)

    def each_second() -> None:
        beat()
        connections.sweep()
        if os.getppid() != parent:
            server.should_exit = True

    config = uvicorn.Config(
        behind(proxies, app) if settings.trusted_proxies else app,
        loop="uvloop",
        http=cast(type[asyncio.Protocol], partial(HttpProtocol, connections)),
        ws=cast(type[asyncio.Protocol], partial(WebSocketProtocol, connections)),
        ws_max_size=settings.max_image_bytes * 4 // 3 + 65536,
        ws_per_message_deflate=False,
        lifespan="on",
        log_config=None,
        access_log=False,  # AccessLog writes it
        server_header=False,
        proxy_headers=False,  # `behind` reads them
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=settings.shutdown_seconds + 1,  # for clients that do not read
    )
    server = Server(config, app, each_second)
    gc.freeze()  # garbage collections skip all objects that exist now
    server.run([listener])
