"""Per-request context: id, headers, start time, status and trace id."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from time import perf_counter

from starlette.types import Scope

# What a caller may choose as id: no log or header injection, and room for a picture's number.
_ID = re.compile(rb"[\w.:/+=@-]{1,56}")
_KEY = "serve.telemetry.request_context"


class RequestContext:
    """The context of one request, kept in its ASGI scope."""

    __slots__ = ("headers", "id", "limits", "started", "status", "trace_id")

    def __init__(self, scope: Scope) -> None:
        self.started = perf_counter()
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        given = self.headers.get(b"x-request-id")
        self.id = given.decode() if given and _ID.fullmatch(given) else os.urandom(12).hex()
        self.limits: Iterable[tuple[bytes, bytes]] = ()  # headers that say what is left
        self.status = 0  # once a response has begun
        self.trace_id = ""  # if somebody collects traces
        scope[_KEY] = self

    @staticmethod
    def of(scope: Scope) -> RequestContext:
        """Return the context of the request."""
        context: RequestContext = scope[_KEY]
        return context

    def header(self, name: bytes) -> str:
        """Return a header's value; empty if it was not sent."""
        return self.headers.get(name, b"").decode("latin-1")
