"""The ASGI application: `create_app()` puts its parts together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress
from operator import attrgetter
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from serve import settings as environment
from serve.http import errors, openapi_document
from serve.http.access_control import Access, AccessControl
from serve.http.access_log import AccessLog, RequestLog
from serve.http.body_memory import BodyMemory
from serve.models import registry_sync
from serve.prediction.service import Service
from serve.routes import drift, feedback, health, open_inference, pages, predict, stream
from serve.settings import VERSION, Settings
from serve.telemetry import logs
from serve.telemetry.metrics import Metrics
from serve.telemetry.tracing import Tracing

_DESCRIPTION = (
    'Classifies images of handwritten digits. The body of every error is `{"detail": …}`.'
)


class Application(FastAPI):
    """FastAPI in our middleware, which also sees requests that FastAPI rejects."""

    service: Service
    access: Access
    bodies: BodyMemory
    requests: RequestLog

    def build_middleware_stack(self) -> ASGIApp:
        """Wrap the router; `errors.Answers` takes the place of FastAPI's handlers of exceptions."""
        service, settings = self.service, self.service.settings
        router = AsyncExitStackMiddleware(self.router)
        routes = AccessControl(router, settings, self.access, self.bodies, service.image_sizes)
        answered = _shared(errors.Answers(routes, service.metrics), settings)
        return AccessLog(answered, self.requests)

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document; its examples name the version in service."""
        document = super().openapi()
        model = self.service.default.models.current
        openapi_document.complete(document, model.version if model else "1")
        return document


def create_app(given: Settings | None = None, metrics_folder: Path | None = None) -> Application:
    """Return a new application with its own metrics registry, models and memory.

    `metrics_folder`: where the processes of the service count (see `metrics.share`).
    """
    settings = given or environment.load()
    metrics = Metrics(metrics_folder)
    service = Service(settings, metrics, _tracing(settings))
    app = Application(
        title="Digit platform",
        version=VERSION,
        description=_DESCRIPTION,
        lifespan=_lifespan,
        # Generated clients name their functions by it.
        generate_unique_id_function=attrgetter("name"),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.service, app.access = service, Access(settings)
    app.bodies = BodyMemory(settings.max_body_memory)
    log = logs.requests(settings, metrics.lost_line)
    app.requests = RequestLog(metrics, log, service.tracing, app.router.routes)
    predict.install(app, service)
    stream.install(app, service, app.access, app.requests)
    feedback.install(app, service)
    health.install(app, service)
    open_inference.install(app, service)
    drift.install(app, service)
    pages.install(app)
    app.router.routes.append(app.router.routes.pop(0))  # FastAPI's /openapi.json, after /predict
    return app


def _tracing(settings: Settings) -> Tracing:
    if not settings.otel_exporter_otlp_endpoint:
        return Tracing()
    from serve.telemetry.otlp import Traced  # a quarter of a second, for those who trace

    return Traced(errors.is_fault)


def _shared(app: ASGIApp, settings: Settings) -> ASGIApp:
    """Add the CORS middleware if pages of other origins may call."""
    if not settings.cors_origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=settings.cors_origins,
        allow_methods=["GET", "POST"],
        allow_headers=settings.cors_headers,
        expose_headers=[
            *("X-Request-ID", "X-Model-Version", "Retry-After"),
            "Inference-Header-Content-Length",
            *("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"),
        ],
    )


@asynccontextmanager
async def _lifespan(app: Application) -> AsyncIterator[None]:
    """Load the current model, and watch for new versions until the application stops."""
    service = app.service
    service.open()
    for served in service.served.values():
        if not served.source.registered:
            registry_sync.sync_folder(service.settings, served.source, service.metrics.reloaded)
        # What is wrong with another model must not stop the default; `watch` says it, and retries.
        with nullcontext() if served is service.default else suppress(OSError):
            served.models.refresh()
    watching = [asyncio.create_task(served.models.watch()) for served in service.served.values()]
    yield
    for each in watching:
        each.cancel()
        with suppress(asyncio.CancelledError):
            await each
    service.close()
