"""Access control: waiting time, API keys, rate limits and body limits, before all other work."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.http import content_encoding
from serve.http.body_memory import SMALL_BYTES, BodyMemory
from serve.settings import Settings
from serve.telemetry.request_context import LATE, RequestContext

if TYPE_CHECKING:
    from serve.http.rate_limit import Left, RateLimit

# Every other path needs a key and counts against the rate limit.
_OPEN = {"/", "/health", "/metrics", "/api/info", "/openapi.json", "/favicon.ico"}
_OPEN_BELOW = ("/health/", "/v2/health/", "/api/docs", "/api/redoc", "/static/")
_FORM_BYTES = 64 * 1024  # of a form, besides the image file
_OTHERS = (_FORM_BYTES, 1)
_V2_BYTES = 24  # of a number of an image in JSON
_V2_MOST = 8 * 2**20  # of a tensor, or one image: JSON that is parsed takes many times its size
_INFER = re.compile(r"/v2/models/([^/]+)/(?:versions/[^/]*/)?infer")
_BATCH_IMAGES = 4  # of the largest size that fit into a batch


class OverloadedError(Exception):
    """The request has waited longer than MAX_WAIT_SECONDS for its turn."""

    def __init__(self) -> None:
        super().__init__("too many requests wait: try again in a second")


class UnauthorisedError(Exception):
    """The API key is missing or wrong."""


class BodyTooLargeError(Exception):
    """The body has more bytes than the path allows."""


class BodyTooSlowError(Exception):
    """The body takes longer than BODY_SECONDS."""


class RateLimitedError(Exception):
    """The caller has exceeded a rate limit."""

    def __init__(self, left: Left) -> None:
        super().__init__(f"too many requests: try again in {left.reset} s")
        self.retry_after = left.reset


class Access:
    """The API keys and the rate limit; without any key, everybody may call.

    A check raises UnauthorisedError, and a count RateLimitedError.
    """

    def __init__(self, settings: Settings) -> None:
        self._digests = [_digest(key.get_secret_value().encode()) for key in settings.api_keys]
        self._rate_limit: RateLimit | None = None
        if settings.rate_limit:
            from serve.http.rate_limit import RateLimit  # 0.1 s, only if there is a limit

            self._rate_limit = RateLimit(settings)

    def caller(self, scope: Scope, context: RequestContext) -> str:
        """Return the caller's name for the rate limit: a digest of the key, or the address."""
        if not self._digests:
            return _address(scope)
        scheme, _, key = context.headers.get(b"authorization", b"").partition(b" ")
        bearer = key.strip() if scheme.lower() == b"bearer" else None
        return self.check(context.headers.get(b"x-api-key", b"") if bearer is None else bearer)

    def check(self, key: bytes) -> str:
        """Return a name for the owner of the key; compares in constant time."""
        digest = _digest(key)
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        if not any(matches):
            wrong = "the API key is wrong" if key else "an API key is needed"
            raise UnauthorisedError(f"{wrong}: Authorization: Bearer … or X-API-Key")
        return digest.hex()

    async def admit(self, scope: Scope, context: RequestContext) -> None:
        """Check the key of a request, and count the request."""
        try:
            caller = self.caller(scope, context)
        except UnauthorisedError:
            await self.count_wrong_key(scope, context)
            raise
        await self.count(caller, context)

    async def count_wrong_key(self, scope: Scope, context: RequestContext) -> None:
        """Count a request with a wrong key or none by its address; it slows down guessing."""
        await self.count(f"without a key: {_address(scope)}", context)

    async def count(self, caller: str, context: RequestContext) -> None:
        """Count a request of the caller against the rate limit, if there is one."""
        context.caller = caller
        left = await self._rate_limit.hit(caller) if self._rate_limit else None
        if not left:
            return
        context.limits = tuple(
            (f"x-ratelimit-{name}".encode(), str(value).encode())
            for name, value in zip(("limit", "remaining", "reset"), left[:3], strict=True)
        )
        if left.exceeded:
            raise RateLimitedError(left)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else "unknown"


class AccessControl:
    """ASGI middleware that checks the wait, the key, the rate limit and the size of the body."""

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        access: Access,
        memory: BodyMemory,
        image_sizes: Callable[[], dict[str, int]],
    ) -> None:
        """`image_sizes` returns how many numbers an image of each served model has."""
        self._app, self._access, self._memory = app, access, memory
        self._image_sizes, self._max_batch = image_sizes, settings.max_batch
        self._max_wait = settings.max_wait_seconds
        one = settings.max_image_bytes * 4 // 3 + _FORM_BYTES
        self._limits = {  # of the body, and its weight
            "/predict": (one, 1),
            "/explain": (one, 1),
            "/feedback": (one, 3),  # as text, too, and decoded
            "/predict/batch": (one * min(_BATCH_IMAGES, settings.max_batch), 1),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or raise the error that refuses it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)  # a WebSocket's route checks the key itself
            return
        path = scope["path"]
        if path not in _OPEN and not path.startswith(_OPEN_BELOW):
            context = RequestContext.of(scope)
            if perf_counter() - context.started > self._max_wait:
                raise OverloadedError
            await self._access.admit(scope, context)
        body = _Body(scope, receive, *self._limit(path), memory=self._memory)
        try:
            await self._app(scope, body, send)
        finally:
            body.give_back()

    def _limit(self, path: str) -> tuple[int, int]:
        if known := self._limits.get(path):
            return known
        infer = _INFER.fullmatch(path)
        numbers = infer and self._image_sizes().get(infer[1])
        if not numbers:
            return _OTHERS
        one = numbers * _V2_BYTES
        return min(self._max_batch * one, max(one, _V2_MOST)) + _FORM_BYTES, 1


class _Body:
    """The `receive` of a request, with its body decoded and limits on it.

    Beyond `limit` bytes it raises BodyTooLargeError, and BodyMemoryError if there is no memory for
    it; `weight` is the number of bytes in memory for each byte. `HttpProtocol` drops the rest.
    """

    def __init__(
        self, scope: Scope, receive: Receive, limit: int, weight: int, memory: BodyMemory
    ) -> None:
        self._scope, self._receive, self._limit = scope, receive, limit
        self._memory, self._weight = memory, weight
        headers = RequestContext.of(scope).headers
        encoding = headers.get(b"content-encoding")
        self._decoder = content_encoding.decoder(encoding.decode("latin-1")) if encoding else None
        declared = headers.get(b"content-length", b"0")
        self._declared = int(declared[:20]) if declared.isdigit() else 0
        self._size = self._held = 0

    def _hold(self, size: int) -> None:
        """Hold memory for a body of `size` bytes so far, if that is not too large."""
        if size > self._limit:
            raise BodyTooLargeError(f"the body has more than {self._limit:,} bytes")
        missing = size * self._weight - self._held
        if missing > 0:
            self._memory.take(missing, small=size <= SMALL_BYTES)
            self._held += missing

    def give_back(self) -> None:
        """Give back the memory."""
        self._memory.give_back(self._held)
        self._held = 0

    async def __call__(self) -> Message:
        """Return the next part of the body."""
        self._hold(self._declared)  # before its client sends it, if it waits for that
        message = await self._receive()
        if LATE in self._scope:
            raise BodyTooSlowError("the body took too long")
        if message["type"] != "http.request":
            return message
        if self._decoder:
            message["body"] = await self._decoded(self._decoder, message)
        else:
            self._add(len(message.get("body", b"")))
        return message

    async def _decoded(self, decoder: content_encoding.Gzip, message: Message) -> bytes:
        """Return the decoded body of the message."""
        found = []
        last = not message.get("more_body")
        for part in decoder.decode(message.get("body", b""), last=last):
            self._add(len(part))
            found.append(part)
            await asyncio.sleep(0)  # others may run
        return b"".join(found)

    def _add(self, size: int) -> None:
        """Count `size` bytes more, and hold memory for them."""
        self._size += size
        self._hold(self._size)
