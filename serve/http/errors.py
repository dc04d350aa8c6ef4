"""Map exceptions to HTTP status codes and error bodies."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.http import access_control, body_memory, content_encoding, request_body
from serve.imaging import errors as image_errors
from serve.models import loaded
from serve.prediction import feedback_store, work_queue
from serve.telemetry.metrics import Metrics
from serve.telemetry.request_context import RequestContext

logger = logging.getLogger(__name__)


class StoppingError(Exception):
    """The service stops before the request has ended."""

    def __init__(self) -> None:
        super().__init__("the service is stopping: try again in a second")


STATUS: dict[type[Exception], int] = {
    image_errors.NotAnImageError: 400,
    request_body.MalformedError: 400,
    access_control.UnauthorisedError: 401,
    loaded.NoReferenceError: 404,
    loaded.UnknownModelError: 404,
    loaded.UnknownVersionError: 404,
    feedback_store.UnknownRequestError: 404,
    access_control.BodyTooSlowError: 408,
    access_control.BodyTooLargeError: 413,
    image_errors.TooManyPixelsError: 413,
    request_body.ImageTooLargeError: 413,
    image_errors.UnsupportedImageError: 415,
    request_body.UnsupportedTypeError: 415,
    content_encoding.UnsupportedEncodingError: 415,
    image_errors.NoDigitError: 422,
    request_body.InvalidError: 422,
    RequestValidationError: 422,
    ValidationError: 422,
    access_control.RateLimitedError: 429,
    access_control.OverloadedError: 503,
    body_memory.BodyMemoryError: 503,
    feedback_store.FeedbackBusyError: 503,
    loaded.NoModelError: 503,
    StoppingError: 503,
    work_queue.BusyError: 503,
    feedback_store.FeedbackFullError: 507,
}
_PREDICTS = (
    "/predict",
    "/explain",
    "/v2/models/",
)  # paths whose errors count as failed predictions


def status(error: Exception) -> int:
    """Return the HTTP status of the error; 500 for an unknown one."""
    if isinstance(error, HTTPException):
        return error.status_code
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def is_fault(error: Exception) -> bool:
    """Return whether the error is the service's fault (status 500)."""
    return status(error) == 500


def detail(error: Exception) -> str:
    """Return the message for the client, without internals or contents of the image."""
    if isinstance(error, ValidationError | RequestValidationError):
        return "; ".join(map(_fault, error.errors()[:5]))
    if isinstance(error, HTTPException):
        return error.detail
    return str(error) if status(error) != 500 else "internal error; the log has the request's id"


def _fault(fault: Mapping[str, Any]) -> str:
    place = ".".join(map(str, fault["loc"]))
    return f"{place}: {fault['msg']}" if place else str(fault["msg"])


def response(error: Exception, scope: Scope, metrics: Metrics) -> Response:
    """Return the response to a failed request; count it, and log internal errors."""
    code, headers = status(error), {}
    _log_fault(error, RequestContext.of(scope))
    if code == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, content_encoding.UnsupportedEncodingError):
        headers["Accept-Encoding"] = content_encoding.ACCEPTED
    if code in (429, 503):
        headers["Retry-After"] = str(getattr(error, "retry_after", 1))
    if isinstance(error, HTTPException) and error.headers:
        headers.update(error.headers)
    if isinstance(error, access_control.BodyTooLargeError | access_control.BodyTooSlowError):
        headers["Connection"] = "close"  # the rest of the body is not read
    predicts = scope["method"] == "POST" and scope["path"].startswith(_PREDICTS)
    if predicts and not isinstance(error, HTTPException):
        metrics.failed(kind(error))
    body = {"detail": detail(error)}
    if scope["path"].startswith("/v2/"):
        body["error"] = body["detail"]  # the field's name in the Open Inference Protocol
    return Response(orjson.dumps(body), code, headers, "application/json")


def _log_fault(error: Exception, context: RequestContext) -> None:
    if is_fault(error):
        ids = {"request_id": context.id}
        if context.trace_id:
            ids["trace_id"] = context.trace_id
        logger.error("request %s failed", context.id, exc_info=error, extra=ids)


def answer_on_socket(error: Exception, context: RequestContext, metrics: Metrics) -> dict[str, Any]:
    """Count a failed picture of a WebSocket, log a fault of ours, and return the answer."""
    _log_fault(error, context)
    metrics.failed(kind(error))
    context.status = status(error)
    return {"detail": detail(error), "status": context.status}


def answer_in_place(error: Exception, metrics: Metrics) -> dict[str, Any]:
    """Count a failed prediction and return its `detail` and `status`; raise a fault of ours."""
    if is_fault(error):
        raise error
    metrics.failed(kind(error))
    return {"detail": detail(error), "status": status(error)}


def kind(error: Exception) -> str:
    """Return the error's name for metrics, such as `no_digit`; one per exception class."""
    name = type(error).__name__.removesuffix("Error").removesuffix("Exception")
    return re.sub(r"(?<!^)(?=[A-Z][a-z])", "_", name).lower()


def _checked(send: Send) -> Send:
    """Return a `send` that raises Starlette's refusal of a range, which is plain text."""

    async def checked(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] in (400, 416):
            size = Headers(raw=message["headers"]).get("content-range")
            headers = {"Content-Range": size} if size else None
            detail = "the header Range is malformed or beyond the end"
            raise HTTPException(message["status"], detail, headers)
        await send(message)

    return checked


class Answers:
    """ASGI middleware that answers the exceptions of the application."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and answer any exception."""
        ranged = scope["type"] == "http" and b"range" in RequestContext.of(scope).headers
        try:
            await self._app(scope, receive, _checked(send) if ranged else send)
        except ClientDisconnect:
            pass  # the client has gone
        except (Exception, asyncio.CancelledError) as error:
            if scope["type"] != "http" or RequestContext.of(scope).status:
                raise  # a response has begun already
            known = error if isinstance(error, Exception) else StoppingError()
            await response(known, scope, self._metrics)(scope, receive, send)
