"""`GET /api/window`, `GET /api/reference`: the two samples that data drift is computed from."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Annotated

from fastapi import FastAPI, Query, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serve.http.direct_route import errors
from serve.models.drift_reference import FILE
from serve.models.loaded import NoReferenceError
from serve.prediction.served import Served
from serve.prediction.service import Service
from serve.prediction.work_queue import BusyError
from serve.routes.predict import MODEL, requested

_NPZ = "application/x-npz"  # arrays of NumPy
_DESCRIBED = {"content": {_NPZ: {"schema": {"type": "string", "format": "binary"}}}}
MAX_IMAGES = 2000  # images: 2 MB
_MAX_WINDOWS = 2  # built or sent at the same time
_CHUNK_BYTES = 64 * 2**10  # bytes
_TIMEOUT_SECONDS = 30  # for a client to read a window
_NOT_KEPT = {"Cache-Control": "no-store"}  # images of users


class _Window(Response):
    """A window of recent predictions, which occupies one of the window slots until it is sent.

    It is sent in chunks, because the server buffers what a client has not read yet.
    """

    def __init__(
        self, service: Service, served: Served, images: int, slots: asyncio.Semaphore
    ) -> None:
        super().__init__(None, headers=_NOT_KEPT, media_type=_NPZ)
        del self.headers["content-length"]
        self._service, self._served, self._images, self._slots = service, served, images, slots

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Create the window and send it."""
        if self._slots.locked():
            raise BusyError
        async with self._slots:
            content = await self._service.window(self._served, self._images)
            self.headers["content-length"] = str(len(content))
            head = {"status": self.status_code, "headers": self.raw_headers}
            try:
                async with asyncio.timeout(_TIMEOUT_SECONDS):
                    await send({"type": "http.response.start", **head})
                    for start in range(0, len(content), _CHUNK_BYTES):
                        body = content[start : start + _CHUNK_BYTES]
                        part = {"type": "http.response.body", "body": body, "more_body": True}
                        await send(part)
                    await send({"type": "http.response.body", "body": b""})
            except TimeoutError:
                raise ClientDisconnect from None  # a slow client must not hold a slot


def install(app: FastAPI, service: Service) -> None:
    """Add the routes to the application."""
    slots = asyncio.Semaphore(_MAX_WINDOWS)

    @app.get(
        "/api/window",
        response_class=Response,
        openapi_extra={"parameters": [MODEL]},
        responses={200: _DESCRIBED, **errors(401, 404, 422, 429, 503)},
    )
    async def window(
        request: Request,
        images: Annotated[
            int, Query(ge=1, le=MAX_IMAGES, description="Number of recent predictions.")
        ] = 1000,
    ) -> Response:
        """Recent images of a model with their predictions, of all workers, as NumPy arrays."""
        return _Window(service, requested(service, request), images, slots)

    @app.get(
        "/api/reference",
        response_class=Response,
        responses={200: _DESCRIBED, **errors(401, 404, 429, 503)},
        openapi_extra={"parameters": [MODEL]},
    )
    async def reference(request: Request) -> Response:
        """Reference images and predictions of the model in service, as NumPy arrays."""
        model = requested(service, request).models.choose(None)
        path = model.folder / FILE
        try:
            content = await asyncio.to_thread(path.read_bytes)
        except FileNotFoundError:
            missing = f"the bundle of version {model.version} has no {FILE}"
            raise NoReferenceError(missing) from None
        described = model.description.get("reference")  # not in bundles of earlier versions
        if described and hashlib.sha256(content).hexdigest() != described["sha256"]:
            raise NoReferenceError(
                f"{FILE} of version {model.version} is not what model.json describes"
            )
        headers = _NOT_KEPT | {"X-Model-Version": model.version}
        return Response(content, headers=headers, media_type=_NPZ)
