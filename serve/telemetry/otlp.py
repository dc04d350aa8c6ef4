"""Tracing: OpenTelemetry spans over OTLP/HTTP, configured by the standard OTEL_… variables."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread

from opentelemetry import context as otel_context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Scope

from serve.settings import VERSION
from serve.telemetry.request_context import RequestContext
from serve.telemetry.tracing import Tracing

_NAME = "digit-platform"  # default of OTEL_SERVICE_NAME
_PATIENCE = 1.0  # seconds to send the last spans
_CARRIERS = (b"traceparent", b"tracestate")


class Traced(Tracing):
    """Tracer of this process. At most the latest few thousand spans wait in memory.

    `is_fault` distinguishes an error of the service from one of its caller.
    """

    def __init__(self, is_fault: Callable[[Exception], bool]) -> None:
        self._is_fault = is_fault
        ours = Resource({"service.name": _NAME, "service.version": VERSION})
        self._provider = TracerProvider(
            resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("serve")
        self._propagator = TraceContextTextMapPropagator()

    def begin(
        self, scope: Scope, context: RequestContext, method: str
    ) -> Callable[[str, int], None]:
        """Start the request's span, a child of the caller's if it sent a traceparent.

        Return the function that ends it, which takes the route and the status.
        """
        sent = {
            name.decode(): context.header(name) for name in _CARRIERS if name in context.headers
        }
        client = scope.get("client")
        span = self._tracer.start_span(
            method,
            self._propagator.extract(sent),
            SpanKind.SERVER,
            {
                "http.request.method": method,
                "url.path": scope["path"][:200],
                "client.address": client[0] if client else "",
                "digits.request_id": context.id,
            },
        )
        context.trace_id = format_trace_id(span.get_span_context().trace_id)
        token = otel_context.attach(set_span_in_context(span))

        def end(route: str, status: int) -> None:
            otel_context.detach(token)
            span.update_name(f"{method} {route}")
            span.set_attribute("http.route", route)
            span.set_attribute("http.response.status_code", status)
            if status >= 500:
                span.set_status(StatusCode.ERROR)
            span.end()

        return end

    @contextmanager
    def span(self, name: str, **about: str | int) -> Iterator[None]:
        """Open a span inside the current one."""
        # A client's mistake is not recorded as an error of the service.
        with self._tracer.start_as_current_span(
            name, attributes=about, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            except Exception as error:
                if self._is_fault(error):
                    span.record_exception(error)
                    span.set_status(StatusCode.ERROR)
                raise

    def close(self) -> None:
        """Send the last spans; an unreachable collector must not delay the shutdown."""
        sending = Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(_PATIENCE)
