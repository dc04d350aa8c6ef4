"""`WS /predict/stream`: predictions while a user draws."""

from __future__ import annotations

from urllib.parse import urlsplit

import orjson
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from serve.http import errors, request_body
from serve.http.access_control import Access, UnauthorisedError
from serve.prediction.service import Service
from serve.routes.predict import wants_image
from serve.telemetry.request_context import RequestContext

_POLICY = 1008  # close code: not allowed


def install(app: FastAPI, service: Service, access: Access) -> None:
    """Add the route to the application."""
    origins = service.settings.cors_origins
    max_bytes = service.settings.max_image_bytes

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
            caller = await _caller(socket, access, context)
            number, show = 0, wants_image(socket)
            while True:
                message = await socket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                number += 1
                try:
                    await access.count(caller, context)
                    if (text := message.get("text")) is None:
                        body, kind = message["bytes"], "image/*"
                    else:
                        body, kind = text.encode("utf-8", "replace"), "application/json"
                    content, draft = request_body.picture(body, kind, max_bytes)
                    model, request_id = service.models.choose(None), f"{context.id}.{number}"
                    answer = await service.predict_file(
                        content, model, request_id, draft=draft, show=show
                    )
                except Exception as error:
                    answer = errors.answer_in_place(error, service.metrics)
                content = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
                await socket.send_text(content.decode())
        except UnauthorisedError as error:
            await socket.close(_POLICY, str(error))
        except WebSocketDisconnect:
            return


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


async def _caller(socket: WebSocket, access: Access, context: RequestContext) -> str:
    try:
        return access.caller(socket.scope, context)
    except UnauthorisedError:
        try:
            key = orjson.loads(await socket.receive_text())["api_key"]
        except (KeyError, TypeError, ValueError):
            key = ""
        return access.check(str(key).encode())
