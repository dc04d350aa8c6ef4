"""`/health`, the probes, `/metrics` and `/api/info`."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from serve.decoding.decode import FORMATS
from serve.decoding.limits import format_limit
from serve.http.schemas import Health, Info, InputInfo, Limits, ModelInfo, Probe
from serve.models.loaded import Model
from serve.prediction.service import Service
from serve.prediction.state import reason
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
        current, why = service.default.models.current, reason(service.served.values())
        found = Health(
            status="degraded" if why else "healthy",
            model_loaded=bool(current),
            model_name=service.default.name,
            model_version=current.version if current else None,
            reason=why or None,
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
            model_name=service.default.name,
            model_names=list(service.served),
            models=[
                _model(model)
                for served in service.served.values()
                for model in served.models.loaded
            ],
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
    about, preparation = model.description, model.predictor.preparation
    return ModelInfo(
        model=model.name,
        version=model.version,
        name=about.get("name"),
        run=about.get("run"),
        sha256=about.get("sha256"),
        labels=list(model.images.labels),
        input=InputInfo(shape=list(preparation.shape), preparation=preparation.kind),
        precision=model.predictor.precision,
        metrics=about.get("metrics", {}),
        card=model.card,
    )
