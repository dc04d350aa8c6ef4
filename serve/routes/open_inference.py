"""The Open Inference Protocol (KServe V2): `/v2/…`.

A body is JSON, or JSON with the bytes of tensors after it (Triton's binary tensor data extension).
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

from fastapi import FastAPI, Request
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from serve.http import request_body, tensors
from serve.http.direct_route import Json, errors, post
from serve.http.inference_schemas import (
    InferRequest,
    InferResponse,
    ModelMetadata,
    ModelReady,
    ServerLive,
    ServerMetadata,
    ServerReady,
)
from serve.http.schemas import reference
from serve.models.loaded import Model
from serve.prediction.recent_answers import Answer
from serve.prediction.served import Served
from serve.prediction.service import Service
from serve.routes.predict import requested_version, still_there
from serve.settings import VERSION
from serve.telemetry.request_context import RequestContext

_LENGTH = "inference-header-content-length"  # of the JSON before the bytes
_BINARY = "application/octet-stream"
_TAKES = {
    "application/json": reference(InferRequest),
    _BINARY: {"type": "string", "format": "binary"},
}
_JSON_LENGTH: dict[str, Any] = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "schema": {"type": "integer", "minimum": 0},
    "description": "Length of the JSON, if the bytes of tensors follow it.",
}
_VERSION: dict[str, Any] = {
    "name": "version",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
}


def install(app: FastAPI, service: Service) -> None:
    """Add the routes to the application."""
    _install_server(app, service)
    for name, served in service.served.items():
        paths = f"/v2/models/{name}", f"/v2/models/{name}/versions/{{version}}"
        _install_metadata(app, service, served, *paths)
        _install_inference(app, service, served, *paths)


def _unready(answer: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    return {503: {"model": answer, "description": "Not ready"}}


def _install_server(app: FastAPI, service: Service) -> None:
    @app.get("/v2")
    async def server_metadata() -> ServerMetadata:
        """The server's name and version."""
        extensions = ["binary_tensor_data"]
        return ServerMetadata(name="digit-platform", version=VERSION, extensions=extensions)

    @app.get("/v2/health/live")
    async def server_live() -> ServerLive:
        """Liveness: the process runs."""
        return ServerLive(live=True)

    @app.get("/v2/health/ready", response_model=ServerReady, responses=_unready(ServerReady))
    async def server_ready() -> JSONResponse:
        """Readiness: a model is loaded and the service is not stopping."""
        return JSONResponse({"ready": service.ready}, 200 if service.ready else 503)


def _install_metadata(
    app: FastAPI, service: Service, served: Served, model_path: str, version_path: str
) -> None:
    # The paths of other models are as those of the default, which alone are described.
    shown = served is service.default

    @app.get(model_path, responses=errors(401, 429, 503), include_in_schema=shown)
    async def model_metadata() -> ModelMetadata:
        """The model's versions, inputs and outputs."""
        return metadata(None)

    def metadata(version: str | None) -> ModelMetadata:
        model = served.models.choose(version)
        return ModelMetadata(
            name=served.name,
            versions=[model.version for model in served.models.loaded],
            platform="tensorflow_lite",
            inputs=[tensors.input_metadata(model)],
            outputs=tensors.output_metadata(model),
            properties={"precision": model.predictor.precision},
        )

    @app.get(version_path, responses=errors(401, 404, 429, 503), include_in_schema=shown)
    async def model_version_metadata(version: str) -> ModelMetadata:
        """Inputs and outputs of a loaded version of the model."""
        return metadata(version)

    @app.get(
        f"{model_path}/ready",
        response_model=ModelReady,
        responses=errors(401, 429) | _unready(ModelReady),
        include_in_schema=shown,
    )
    async def model_ready() -> JSONResponse:
        """Readiness of the model."""
        ready = service.can_predict(served)
        return JSONResponse({"name": served.name, "ready": ready}, 200 if ready else 503)

    @app.get(
        f"{version_path}/ready",
        response_model=ModelReady,
        responses=errors(401, 404, 429) | _unready(ModelReady),
        include_in_schema=shown,
    )
    async def model_version_ready(version: str) -> JSONResponse:
        """Readiness of a loaded version of the model."""
        served.models.choose(version)
        return await model_ready()


def _install_inference(
    app: FastAPI, service: Service, served: Served, model_path: str, version_path: str
) -> None:
    shown = served is service.default
    for path in (model_path, version_path):
        service.metrics.await_errors(f"{path}/infer")

    @post(
        app,
        f"{model_path}/infer",
        _TAKES,
        InferResponse,
        [_JSON_LENGTH],
        also=[_BINARY],
        shown=shown,
    )
    async def model_infer(request: Request) -> Response:
        """Predict the classes of images of the model's size from 0 to 255, flat or nested."""
        context = RequestContext.of(request.scope)
        request_body.check_json(context.header(b"content-type"), also=_BINARY)
        model = _model(served, request)
        body = await request.body()
        length = _json_length(context, len(body))

        def work() -> tuple[InferRequest, list[Answer]]:
            asked = InferRequest.model_validate_json(body[:length])
            started = perf_counter()
            most = service.settings.max_batch
            images = tensors.images(asked.inputs[0], body[length:], most, model)
            return asked, service.predict_images(images, model, context, started)

        asked, answers = await service.run_batch(len(body), work, still_there(request))
        outputs, raw = tensors.outputs(asked, answers)
        about = {"id": asked.id or context.id, "model_name": served.name}
        content = about | {"model_version": model.version}
        return _response(Json(content | {"outputs": outputs}, model.version), raw)

    @post(
        app,
        f"{version_path}/infer",
        _TAKES,
        InferResponse,
        [_VERSION, _JSON_LENGTH],
        also=[_BINARY],
        shown=shown,
    )
    async def model_version_infer(request: Request) -> Response:
        """Predict by a loaded version of the model."""
        return await model_infer(request)


def _model(served: Served, request: Request) -> Model:
    version = request.path_params.get("version")
    return served.models.choose(version) if version else requested_version(served, request)


def _json_length(context: RequestContext, size: int) -> int:
    """Return the length of the JSON at the start of a body of `size` bytes."""
    if _LENGTH.encode() not in context.headers:
        return size
    header = context.header(_LENGTH.encode())
    if not (header.isdecimal() and len(header) < 20 and int(header) <= size):
        raise request_body.MalformedError(f"{_LENGTH}: must be a number up to the body's {size}")
    return int(header)


def _response(answer: Json, raw: list[bytes]) -> Response:
    """Return the answer, with the bytes of tensors after it if there are any."""
    if not raw:
        return answer
    headers = {_LENGTH: str(len(answer.body)), "x-model-version": answer.headers["x-model-version"]}
    return Response(b"".join((answer.body, *raw)), headers=headers, media_type=_BINARY)
