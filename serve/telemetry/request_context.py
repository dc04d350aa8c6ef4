"""Per-request context: id, caller, headers, start time, status and trace id."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from copy import copy
from functools import lru_cache
from time import perf_counter

from starlette.types import Scope

# What a caller may choose as id: no log or header injection, and room for a picture's number.
_ID = re.compile(rb"[\w.:/+=@-]{1,56}")
# In the scope of a request whose body takes longer than BODY_SECONDS.
LATE = "serve.late"
# In the scope of a request that had to wait for its turn: when that began, by `perf_counter`.
ARRIVED = "serve.arrived"
_KEY = "serve.telemetry.request_context"


def new_id() -> str:
    """Return an id for a request whose caller did not choose one."""
    return os.urandom(12).hex()


@lru_cache(1024)
def _owner(caller: str) -> str:
    return hashlib.sha256(caller.encode()).hexdigest()[:16]


class RequestContext:
    """The context of one request, or of one picture on a WebSocket; kept in its ASGI scope."""

    __slots__ = ("caller", "headers", "id", "limits", "started", "status", "trace_id")

    def __init__(self, scope: Scope) -> None:
        self.started: float = scope.get(ARRIVED) or perf_counter()
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        given = self.headers.get(b"x-request-id")
        self.id = given.decode() if given and _ID.fullmatch(given) else new_id()
        self.caller = ""  # set by access control
        self.limits: Iterable[tuple[bytes, bytes]] = ()  # headers that say what is left
        self.status = 0  # once a response has begun
        self.trace_id = ""  # if somebody collects traces
        scope[_KEY] = self

    @staticmethod
    def of(scope: Scope) -> RequestContext:
        """Return the context of the request."""
        context: RequestContext = scope[_KEY]
        return context

    def of_picture(self, number: int) -> RequestContext:
        """Return the context of the picture with this number on this WebSocket."""
        found = copy(self)
        found.started, found.id = perf_counter(), f"{self.id}.{number}"
        found.limits, found.status = (), 0
        return found

    @property
    def owner(self) -> str:
        """A digest of the caller, to whom the request's id belongs."""
        return _owner(self.caller)

    def header(self, name: bytes) -> str:
        """Return a header's value; empty if it was not sent."""
        return self.headers.get(name, b"").decode("latin-1")
