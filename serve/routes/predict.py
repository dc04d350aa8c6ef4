"""`POST /predict`, `POST /predict/batch`, `POST /explain`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import Response

from serve.http import errors, request_body
from serve.http.direct_route import Json, post
from serve.http.schemas import (
    BatchPrediction,
    BatchRequest,
    Explanation,
    PredictFile,
    PredictForm,
    Prediction,
    PredictRequest,
    reference,
)
from serve.models.loaded import Model
from serve.prediction.recent_answers import Answer
from serve.prediction.service import Service
from serve.prediction.work_queue import Check
from serve.telemetry.request_context import RequestContext

Result = TypeVar("Result")

_FILE = {"type": "string", "format": "binary"}
_PREDICT = {
    "application/json": reference(PredictRequest),
    **dict.fromkeys(("image/png", "image/jpeg", "image/webp", "application/octet-stream"), _FILE),
    "multipart/form-data": reference(PredictFile),
    "application/x-www-form-urlencoded": reference(PredictForm),
}
_VERSION = {"type": "string", "maxLength": 64}
_LOADED = "A loaded model version (see /api/info); default: the one in service."
_SEEN = "True to return the 28x28 image that the model saw."


def _parameter(where: str, name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": where, "schema": schema, "description": description}


_CHOICE = [
    _parameter("query", "version", _VERSION, _LOADED),
    _parameter("header", "X-Model-Version", _VERSION, "The same, as a header."),
]
_SHOW = _parameter("query", "image", {"type": "boolean", "default": False}, _SEEN)


def wants_image(connection: HTTPConnection) -> bool:
    """Return whether the request has `?image=true`."""
    return _queried(connection, "image").lower() in ("true", "1")


def requested_model(service: Service, request: Request) -> Model:
    """Return the model version that the request asks for; errors as `LoadedModels.choose`."""
    header = RequestContext.of(request.scope).header(b"x-model-version")
    return service.models.choose(_queried(request, "version") or header)


def _queried(connection: HTTPConnection, name: str) -> str:
    """Return a parameter of the query; empty if it was not sent, as in most requests."""
    return connection.query_params.get(name, "") if connection.scope["query_string"] else ""


def still_there(request: Request) -> Check:
    """Return a check that raises ClientDisconnect if the client has gone."""

    async def check() -> None:
        if await request.is_disconnected():
            raise ClientDisconnect

    return check


async def _parse(
    service: Service, request: Request, parse: Callable[[bytes], Result], check: Check
) -> Result:
    """Read and parse the body; once it is parsed, nothing holds it."""
    body = await request_body.read(request)
    return await service.parse(body, lambda: parse(body), check)


def install(app: FastAPI, service: Service) -> None:
    """Add the routes to the application."""
    most, max_bytes = service.settings.max_batch, service.settings.max_image_bytes

    async def answered(request: Request, answer: Callable[..., Awaitable[Answer]]) -> Response:
        """Answer a picture by the service's `predict_file` or `explain_file`."""
        context = RequestContext.of(request.scope)
        model = requested_model(service, request)
        kind, check = context.header(b"content-type"), still_there(request)
        content, draft = await _parse(
            service, request, lambda body: request_body.picture(body, kind, max_bytes), check
        )
        show = wants_image(request)
        found = await answer(content, model, context, draft=draft, show=show, check=check)
        return Json(found, model.version)

    @post(app, "/predict", _PREDICT, Prediction, [*_CHOICE, _SHOW])
    async def predict(request: Request) -> Response:
        """Predict the digit in an image."""
        return await answered(request, service.predict_file)

    @post(app, "/explain", _PREDICT, Explanation, [*_CHOICE, _SHOW])
    async def explain(request: Request) -> Response:
        """Predict the digit in an image, and show which parts the answer rests on."""
        return await answered(request, service.explain_file)

    batch = {"application/json": reference(BatchRequest)}

    @post(app, "/predict/batch", batch, BatchPrediction, _CHOICE)
    async def predict_batch(request: Request) -> Response:
        """Predict the digits in a batch of images; a bad image has its error in its place."""
        context = RequestContext.of(request.scope)
        request_body.check_json(context.header(b"content-type"))
        model = requested_model(service, request)
        check = still_there(request)
        contents = await _parse(
            service, request, lambda body: request_body.images(body, most, max_bytes), check
        )
        answers = await service.predict_files(contents, model, context, check)
        shaped = [
            errors.answer_in_place(answer, service.metrics)
            if isinstance(answer, Exception)
            else answer
            for answer in answers
        ]
        return Json({"predictions": shaped, "model_version": model.version}, model.version)
