"""`/health`, the probes, `/metrics` and `/api/info`."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from serve.decoding.decode import FORMATS
from serve.decoding.limits import format_limit
from serve.http.schemas import Health, Info, Limits, ModelInfo, Probe
from serve.models.loaded import Model
from serve.prediction.service import Service
from serve.settings import VERSION

_UNREADY: dict[int | str, dict[str, Any]] = {
    503: {"model": Probe, "description": "No model is loaded, or the service is stopping"}
}


def install(app: FastAPI, service: Service) -> None:
    """Add the routes to the application."""
    settings = service.settings

    @app.get(
        "/health",
        response_model=Health,
        responses={503: {"model": Health, "description": "No model is loaded"}},
    )
    async def health() -> Response:
        """Whether the service can predict, and with the newest model."""
        current, failure = service.models.current, service.models.failure
        found = Health(
            status="degraded" if service.degraded else "healthy",
            model_loaded=bool(current),
            model_name=settings.model_name,
            model_version=current.version if current else None,
            reason=failure or (None if current else "no model is loaded yet"),
        )
        return JSONResponse(found.model_dump(), 200 if current else 503)

    @app.get("/health/live")
    async def live() -> Probe:
        """Liveness: the process runs."""
        return Probe(status="live")

    @app.get("/health/ready", response_model=Probe, responses=_UNREADY)
    async def ready() -> Response:
        """Readiness: a model is loaded and the service is not stopping."""
        if service.ready:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "stopping" if service.stopping else "no model"}, 503)

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics(request: Request) -> Response:
        """Prometheus metrics of all workers."""
        content, content_type = service.metrics.render(request.headers.get("accept", ""))
        # Some gauges are of the worker that answers. Without `close` a scraper would keep its
        # connection, and see the same worker for ever.
        return Response(content, headers={"Content-Type": content_type, "Connection": "close"})

    @app.get("/api/info")
    async def info() -> Info:
        """The service's version, models and limits."""
        return Info(
            service="digit-platform",
            version=VERSION,
            model_name=settings.model_name,
            models=[_model(model) for model in service.models.loaded],
            confidence_threshold=settings.confidence_threshold,
            image_formats=list(FORMATS),
            limits=Limits(
                max_image_bytes=settings.max_image_bytes,
                max_image_pixels=settings.max_image_pixels,
                max_avif_pixels=format_limit("AVIF", settings.max_image_pixels),
                max_whole_pixels=format_limit("WEBP", settings.max_image_pixels),
                max_batch=settings.max_batch,
                rate_limit=settings.rate_limit or None,
                api_key_required=bool(settings.api_keys),
            ),
        )


def _model(model: Model) -> ModelInfo:
    about = model.description
    return ModelInfo(
        version=model.version,
        name=about.get("name"),
        run=about.get("run"),
        sha256=about.get("sha256"),
        precision=model.predictor.precision,
        metrics=about.get("metrics", {}),
        card=model.card,
    )
