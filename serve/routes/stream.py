"""`WS /predict/stream`: predictions while a user draws."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import orjson
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from starlette.types import Message

from serve.http import errors, request_body
from serve.http.access_control import Access, RateLimitedError, UnauthorisedError
from serve.http.access_log import WEBSOCKET, RequestLog
from serve.prediction.recent_answers import Answer
from serve.prediction.service import Service
from serve.routes.predict import add_best, requested, requested_top_k, wants_image
from serve.telemetry.request_context import RequestContext

_POLICY = 1008  # close code: not allowed


def install(app: FastAPI, service: Service, access: Access, requests: RequestLog) -> None:
    """Add the route to the application."""
    origins = service.settings.cors_origins

    @app.websocket("/predict/stream")
    async def stream(socket: WebSocket) -> None:
        """Answer each message, an image file or the JSON of /predict, with the JSON of /predict.

        With ?image=true the answers hold the image that the model saw. If a key is needed and the
        client cannot send headers, the first message is {"api_key": "…"}. An error is answered
        with {"detail", "status"}; the connection stays open.
        """
        context = RequestContext.of(socket.scope)
        if not _from_here(context, origins):
            await socket.close(_POLICY, "this origin may not connect")
            return
        await socket.accept()
        try:
            caller = await _caller(socket, access, requests, service.settings.head_seconds)
            number = 0
            while (message := await socket.receive())["type"] != "websocket.disconnect":
                number += 1
                picture = context.of_picture(number)
                with _counted(socket, picture, requests):
                    try:
                        await access.count(caller, picture)
                        answer = await _answer(service, socket, message, picture)
                        picture.status = 200
                    except Exception as error:
                        answer = errors.answer_on_socket(error, picture, service.metrics)
                    content = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
                    await socket.send_text(content.decode())
        except (UnauthorisedError, RateLimitedError) as error:
            await socket.close(_POLICY, str(error))
        except WebSocketDisconnect:
            return


async def _answer(
    service: Service, socket: WebSocket, message: Message, picture: RequestContext
) -> Answer:
    """Return the prediction for the picture in a message."""
    if (text := message.get("text")) is None:
        body, kind = message["bytes"], "image/*"
    else:
        body, kind = text.encode("utf-8", "replace"), "application/json"
    served, most = requested(service, socket), requested_top_k(socket)
    limit = service.settings.max_image_bytes
    content, draft, given = await service.parse(
        body, lambda: request_body.picture(body, kind, limit), _always
    )
    model, show = served.models.choose(None), wants_image(socket)
    answer = await service.predict_file(content, model, picture, draft=draft, show=show)
    add_best([answer], model, most or given)
    return answer


async def _always() -> None:
    """Check nothing: an answer is wanted as long as its WebSocket is open."""


@contextmanager
def _counted(socket: WebSocket, context: RequestContext, requests: RequestLog) -> Iterator[None]:
    end = requests.begin(socket.scope, context, WEBSOCKET)
    try:
        yield
    finally:
        end()


def _from_here(context: RequestContext, origins: tuple[str, ...]) -> bool:
    """Return whether the page that connects is ours or of an allowed origin.

    Browsers let every page open a WebSocket and only send its origin.
    """
    origin = context.header(b"origin")
    if not origin or origin in origins or "*" in origins:
        return True
    try:
        return urlsplit(origin).netloc == context.header(b"host")
    except ValueError:
        return False


async def _caller(socket: WebSocket, access: Access, requests: RequestLog, seconds: float) -> str:
    """Return the caller's name for the rate limit, by the headers or by the first message.

    A wrong key, or none in `seconds`, is counted and logged as a request.
    """
    context = RequestContext.of(socket.scope)
    try:
        return access.caller(socket.scope, context)
    except UnauthorisedError:
        try:
            async with asyncio.timeout(seconds):
                key = orjson.loads(await socket.receive_text())["api_key"]
        except (KeyError, TypeError, ValueError, TimeoutError):
            key = ""
    try:
        return access.check(str(key).encode())
    except UnauthorisedError as error:
        context = context.of_picture(0)
        with _counted(socket, context, requests):
            context.status = errors.status(error)
            try:
                await access.count_wrong_key(socket.scope, context)
            except RateLimitedError as limited:
                context.status = errors.status(limited)
                raise
        raise
