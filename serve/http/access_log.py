"""The outermost middleware: request ids, security headers, metrics and the access log.

A picture on a WebSocket is counted, traced and logged as a request is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

from starlette.routing import BaseRoute, Match, Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.telemetry.logs import Request
from serve.telemetry.metrics import Metrics
from serve.telemetry.request_context import RequestContext
from serve.telemetry.tracing import Tracing

# Health probes and Prometheus scrapes are neither logged nor counted.
_QUIET = {"/metrics", "/health", "/health/live", "/health/ready"}
_QUIET |= {"/v2/health/live", "/v2/health/ready"}
# What is answered without a route of FastAPI.
_FOLDERS = ("/openapi.json", "/static", "/api/docs/assets")
WEBSOCKET = "WS"  # the method in metrics, traces and logs
_SWITCHED, _FORBIDDEN, _CLIENT_CLOSED = 101, 403, 499
_NO_SNIFFING = (b"x-content-type-options", b"nosniff")


class RequestLog:
    """Counts, traces and logs requests; `routes` are those of the application."""

    def __init__(
        self, metrics: Metrics, log: Request | None, tracing: Tracing, routes: Sequence[BaseRoute]
    ) -> None:
        self._metrics, self._log, self._tracing = metrics, log, tracing
        self._routes = routes

    def begin(self, scope: Scope, context: RequestContext, method: str) -> Callable[[], None]:
        """Begin a request; return the function that ends it, with the status in its context."""
        self._metrics.began()
        ended = self._tracing.begin(scope, context, method)

        def end() -> None:
            endpoint, status = self._endpoint(scope), context.status or _CLIENT_CLOSED
            if ended:
                ended(endpoint, status)
            seconds = perf_counter() - context.started
            self._metrics.answered(method, endpoint, status, seconds)
            if self._log:
                self._log(_entry(scope, context, method, status, seconds))

        return end

    def _endpoint(self, scope: Scope) -> str:
        """Return the template of the route, so that metrics have few labels."""
        route = scope.get("route")
        if route:
            return str(route.path)
        for folder in _FOLDERS:
            if scope["path"].startswith(folder):
                return folder
        for known in self._routes:  # for what was refused before it was routed
            if isinstance(known, Route | WebSocketRoute) and known.matches(scope)[0] != Match.NONE:
                return known.path
        return "unmatched"


def _entry(
    scope: Scope, context: RequestContext, method: str, status: int, seconds: float
) -> dict[str, Any]:
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
    return entry


class AccessLog:
    """ASGI middleware that counts, traces and logs every request.

    Of a WebSocket it counts only the handshake that is refused: its route counts the pictures.
    """

    def __init__(self, app: ASGIApp, requests: RequestLog) -> None:
        self._app, self._requests = app, requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, then count and log it."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                send = self._watched(scope, RequestContext(scope), send)
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
        end = self._requests.begin(scope, context, method)
        try:
            await self._app(scope, receive, observed)
        finally:
            end()

    def _watched(self, scope: Scope, context: RequestContext, send: Send) -> Send:
        """Return a `send` that counts the handshake if it is refused."""

        async def watched(message: Message) -> None:
            if message["type"] == "websocket.close" and not context.status:
                context.status = _FORBIDDEN
                self._requests.begin(scope, context, WEBSOCKET)()
            context.status = context.status or _SWITCHED
            await send(message)

        return watched
