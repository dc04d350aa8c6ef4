"""Routes that bypass FastAPI's request handling; FastAPI only documents them.

A direct route's endpoint takes the Request and returns the Response. Its OpenAPI request body is
written by hand. The routes exist because FastAPI's own handling costs a `/predict` request 7 % more
CPU time (14 % in the quietest tenth of the slices; interleaved runs of both in one process).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serve.http.schemas import Error

Endpoint = Callable[[Request], Awaitable[Response]]

_JSON = (b"content-type", b"application/json")
_REASONS = {
    400: "Not an image, or a corrupt one",
    401: "API key missing or wrong",
    404: "Unknown model or version",
    408: "The body took too long",
    413: "Too many bytes or pixels",
    415: "Unsupported media type or image format",
    422: "Body does not match the schema, or no digit in the image",
    429: "Too many requests",
    503: "No model is loaded, or the service is too busy",
    507: "No room for feedback",
}


def post(
    app: FastAPI,
    path: str,
    takes: dict[str, Any],
    answer: type[BaseModel],
    parameters: Sequence[dict[str, Any]] = (),
    own: Sequence[int] = (),
    also: Sequence[str] = (),
    *,
    shown: bool = True,
) -> Callable[[Endpoint], Endpoint]:
    """Decorate an endpoint as a direct POST route.

    `takes`: body schemas by media type. `own`: statuses of errors that others do not have.
    `also`: media types of the answer besides JSON. `shown`: whether OpenAPI describes it.
    """
    content = {media: {"schema": schema} for media, schema in takes.items()}
    described: dict[str, Any] = {"requestBody": {"required": True, "content": content}}
    if parameters:
        described["parameters"] = parameters
    if also:
        described["responses"] = {"200": {"content": {media: {} for media in also}}}

    def decorate(endpoint: Endpoint) -> Endpoint:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            response = await endpoint(Request(scope, receive))
            await response(scope, receive, send)

        route = APIRoute(
            path,
            endpoint,
            methods=["POST"],
            operation_id=endpoint.__name__,
            include_in_schema=shown,
            response_model=answer,
            openapi_extra=described,
            responses=errors(400, 401, 404, 408, 413, 415, 422, 429, 503, *own),
        )
        route.app = application
        app.router.routes.append(route)
        return endpoint

    return decorate


def errors(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI `responses` of these status codes."""
    return {code: {"model": Error, "description": _REASONS[code]} for code in codes}


class Json(Response):
    """JSON response by `orjson`, which can write NumPy arrays."""

    def __init__(self, content: object, version: str | None = None) -> None:
        self.status_code, self.background = 200, None  # Response.__init__ would loop over headers
        self.body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
        self.raw_headers = [_JSON, (b"content-length", b"%d" % len(self.body))]
        if version:
            self.raw_headers.append((b"x-model-version", version.encode("latin-1")))
