"""Traces: a span for each request and for what is done for it, if somebody collects them.

Without `OTEL_EXPORTER_OTLP_ENDPOINT` nothing of OpenTelemetry is imported, and a span is an object
that does nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeVar

from starlette.types import Scope

from serve.settings import Settings
from serve.telemetry.request_context import RequestContext

Result = TypeVar("Result")


class Tracing(Protocol):
    """What takes note of spans."""

    def begin(self, scope: Scope, context: RequestContext) -> Callable[[str, int], None] | None:
        """Begins a request's span; what ends it is to be told the route and the status."""

    def span(self, name: str, **about: str | int) -> AbstractContextManager[object]:
        """A span inside the request's; nothing outside of one."""

    def carried(self, work: Callable[[], Result]) -> Callable[[], Result]:
        """The work, whose spans will be inside this request's also in another thread."""

    def close(self) -> None:
        """Sends what is left, for a second at most."""


class _Untraced:
    """Nobody collects them."""

    _nothing = nullcontext()

    def begin(self, scope: Scope, context: RequestContext) -> None:
        return None

    def span(self, name: str, **about: str | int) -> AbstractContextManager[object]:
        return self._nothing

    def carried(self, work: Callable[[], Result]) -> Callable[[], Result]:
        return work

    def close(self) -> None:
        return None


def start(settings: Settings, is_fault: Callable[[Exception], bool]) -> Tracing:
    """Called in the process that will answer: what sends the spans is a thread of its own."""
    if not settings.otel_exporter_otlp_endpoint:
        return _Untraced()
    from serve.telemetry.otlp import Traced  # a quarter of a second, for those who trace

    return Traced(is_fault)
