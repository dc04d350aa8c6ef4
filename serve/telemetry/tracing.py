"""Tracing: a span for each request and its steps, if a collector is set.

Without `OTEL_EXPORTER_OTLP_ENDPOINT` OpenTelemetry is not imported and spans do nothing.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from starlette.types import Scope

from serve.telemetry.request_context import RequestContext


class Tracing:
    """Tracing that does nothing, for no collector is set; `otlp.Traced` overrides it."""

    _nothing = nullcontext()

    def begin(
        self, scope: Scope, context: RequestContext, method: str
    ) -> Callable[[str, int], None] | None:
        """Start a request's span; return a function (route, status) that ends it."""
        return None

    def span(self, name: str, **about: str | int) -> AbstractContextManager[object]:
        """Return a child span of the request's span; nothing outside of a request."""
        return self._nothing

    def close(self) -> None:
        """Send the remaining spans, for a second at most."""
