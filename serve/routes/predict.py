"""`POST /predict`, `POST /predict/batch`, `POST /explain`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import Response

from serve.http import errors, request_body
from serve.http.direct_route import Json, post
from serve.http.request_body import InvalidError
from serve.http.schemas import (
    MAX_CLASSES,
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
from serve.prediction.served import Served
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
_SERVED = "A served model (see /api/info); default: the first of MODELS."
_SEEN = "True to return the image that the model saw."
_BEST = "How many of the best classes to name in `top_k` of the answer."


def _parameter(where: str, name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": where, "schema": schema, "description": description}


MODEL = _parameter("query", "model", _VERSION, _SERVED)
_CHOICE = [
    MODEL,
    _parameter("query", "version", _VERSION, _LOADED),
    _parameter("header", "X-Model-Version", _VERSION, "The same, as a header."),
]
_TOP_K = _parameter(
    "query", "top_k", {"type": "integer", "minimum": 1, "maximum": MAX_CLASSES}, _BEST
)
_SHOW = _parameter("query", "image", {"type": "boolean", "default": False}, _SEEN)


def wants_image(connection: HTTPConnection) -> bool:
    """Return whether the request has `?image=true`."""
    return _queried(connection, "image").lower() in ("true", "1")


def requested(service: Service, connection: HTTPConnection) -> Served:
    """Return the model that the request names with `?model=`; errors as `Service.choose`."""
    return service.choose(_queried(connection, "model"))


def requested_version(served: Served, request: Request) -> Model:
    """Return the version that the request asks for; errors as `LoadedModels.choose`."""
    header = RequestContext.of(request.scope).header(b"x-model-version")
    return served.models.choose(_queried(request, "version") or header)


def requested_top_k(connection: HTTPConnection) -> int | None:
    """Return how many of the best classes `?top_k=` asks for; None if it does not."""
    text = _queried(connection, "top_k")
    if text and not (text.isdecimal() and len(text) < 4 and 1 <= int(text) <= MAX_CLASSES):
        raise InvalidError(f"top_k: must be a whole number from 1 to {MAX_CLASSES}")
    return int(text) if text else None


def add_best(answers: Sequence[Answer], model: Model, most: int | None) -> None:
    """Add the best classes to the answers, if any are asked for."""
    if most:
        for answer in answers:
            answer["top_k"] = model.best(answer["probabilities"], most)


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
    max_batch, max_bytes = service.settings.max_batch, service.settings.max_image_bytes

    async def answered(request: Request, answer: Callable[..., Awaitable[Answer]]) -> Response:
        """Answer a picture by the service's `predict_file` or `explain_file`."""
        context = RequestContext.of(request.scope)
        model = requested_version(requested(service, request), request)
        kind, check = context.header(b"content-type"), still_there(request)
        most = requested_top_k(request)
        content, draft, given = await _parse(
            service, request, lambda body: request_body.picture(body, kind, max_bytes), check
        )
        show = wants_image(request)
        found = await answer(content, model, context, draft=draft, show=show, check=check)
        add_best([found], model, most or given)
        return Json(found, model.version)

    @post(app, "/predict", _PREDICT, Prediction, [*_CHOICE, _TOP_K, _SHOW])
    async def predict(request: Request) -> Response:
        """Predict the digit in an image."""
        return await answered(request, service.predict_file)

    @post(app, "/explain", _PREDICT, Explanation, [*_CHOICE, _TOP_K, _SHOW])
    async def explain(request: Request) -> Response:
        """Predict the digit in an image, and show which parts the answer rests on."""
        return await answered(request, service.explain_file)

    batch = {"application/json": reference(BatchRequest)}

    @post(app, "/predict/batch", batch, BatchPrediction, [*_CHOICE, _TOP_K])
    async def predict_batch(request: Request) -> Response:
        """Predict the digits in a batch of images; a bad image has its error in its place."""
        context = RequestContext.of(request.scope)
        request_body.check_json(context.header(b"content-type"))
        model = requested_version(requested(service, request), request)
        check, most = still_there(request), requested_top_k(request)
        contents, given = await _parse(
            service, request, lambda body: request_body.images(body, max_batch, max_bytes), check
        )
        answers = await service.predict_files(contents, model, context, check)
        add_best([one for one in answers if isinstance(one, dict)], model, most or given)
        shaped = [
            errors.answer_in_place(answer, service.metrics)
            if isinstance(answer, Exception)
            else answer
            for answer in answers
        ]
        return Json({"predictions": shaped, "model_version": model.version}, model.version)
