"""The outermost middleware: request ids, security headers, metrics and the access log."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.telemetry.logs import Request
from serve.telemetry.metrics import Metrics
from serve.telemetry.request_context import RequestContext
from serve.telemetry.tracing import Tracing

logger = logging.getLogger(__name__)

# Health probes and Prometheus scrapes are neither logged nor counted.
_QUIET = {"/metrics", "/health", "/health/live", "/health/ready"}
_QUIET |= {"/v2/health/live", "/v2/health/ready"}
# What is answered without a route of FastAPI.
_FOLDERS = ("/openapi.json", "/static", "/api/docs/assets")
_NO_SNIFFING = (b"x-content-type-options", b"nosniff")


class AccessLog:
    """ASGI middleware that counts, traces and logs every request."""

    def __init__(
        self, app: ASGIApp, metrics: Metrics, log: Request | None, tracing: Tracing
    ) -> None:
        self._app, self._metrics, self._log, self._tracing = app, metrics, log, tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, then count and log it."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                RequestContext(scope)
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        if method == "HEAD":  # uvicorn drops the body
            scope = {**scope, "method": "GET"}
        context = RequestContext(scope)

        async def observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                context.status = message["status"]
                headers = message["headers"] = list(message.get("headers", ()))
                headers += ((b"x-request-id", context.id.encode()), _NO_SNIFFING)
                headers += context.limits
            await send(message)

        if scope["path"] in _QUIET:
            await self._app(scope, receive, observed)
            return
        self._metrics.began()
        ended = self._tracing.begin(scope, context)
        try:
            await self._app(scope, receive, observed)
        finally:
            status = context.status or 499  # the client closed the connection
            if ended:
                ended(_endpoint(scope), status)
            self._end(scope, method, context, status)

    def _end(self, scope: Scope, method: str, context: RequestContext, status: int) -> None:
        seconds = perf_counter() - context.started
        self._metrics.answered(method, _endpoint(scope), status, seconds)
        if self._log:
            client = scope.get("client")
            entry: dict[str, Any] = {
                "time": datetime.now(UTC),
                "level": "info",
                "message": "request",
                "request_id": context.id,
                "method": method,
                "path": scope["path"][:200],
                "status": status,
                "duration_ms": round(seconds * 1000, 3),
                "client": client[0] if client else None,
            }
            if context.trace_id:
                entry["trace_id"] = context.trace_id
            self._log(entry)


def _endpoint(scope: Scope) -> str:
    """Return the template of the route, so that metrics have few labels."""
    route = scope.get("route")
    if route:
        return str(route.path)
    folders = (folder for folder in _FOLDERS if scope["path"].startswith(folder))
    return next(folders, "unmatched")
