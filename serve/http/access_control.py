"""Access control: API keys, rate limits and body limits, checked before all other work."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.settings import Settings
from serve.telemetry.request_context import RequestContext

if TYPE_CHECKING:
    from serve.http.rate_limit import Left, RateLimit  # 0.1 s, only if there is a limit

# Every other path needs a key and counts against the rate limit.
_OPEN = {"/", "/health", "/metrics", "/api/info", "/openapi.json", "/favicon.ico"}
_OPEN_BELOW = ("/health/", "/v2/health/", "/api/docs", "/api/redoc", "/static/")
_FORM_BYTES = 64 * 1024  # of a form, besides the image file
_V2_BYTES = 28 * 28 * 24  # an image as JSON numbers
_BATCH_IMAGES = 4  # of the largest size that fit into a batch


class UnauthorisedError(Exception):
    """The API key is missing or wrong."""


class BodyTooLargeError(Exception):
    """The body has more bytes than the path allows."""


class RateLimitedError(Exception):
    """The caller has exceeded a rate limit."""

    def __init__(self, left: Left) -> None:
        super().__init__(f"too many requests: try again in {left.reset} s")
        self.retry_after = left.reset


class Keys:
    """The API keys; without any key, everybody may call."""

    def __init__(self, settings: Settings) -> None:
        self._digests = [_digest(key.get_secret_value().encode()) for key in settings.api_keys]

    def caller(self, scope: Scope, context: RequestContext) -> str:
        """Return the caller's name for the rate limit: a digest of the key, or the address.

        Raises:
            UnauthorisedError
        """
        if not self._digests:
            return address(scope)
        return self.check(_sent(context))

    def check(self, key: bytes) -> str:
        """Return a name for the owner of the key; compares in constant time.

        Raises:
            UnauthorisedError
        """
        digest = _digest(key)
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        if not any(matches):
            wrong = "the API key is wrong" if key else "an API key is needed"
            raise UnauthorisedError(f"{wrong}: Authorization: Bearer … or X-API-Key")
        return digest.hex()

    def __bool__(self) -> bool:
        return bool(self._digests)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _sent(context: RequestContext) -> bytes:
    scheme, _, key = context.headers.get(b"authorization", b"").partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else context.headers.get(b"x-api-key", b"")


class AccessControl:
    """ASGI middleware that checks the key, the rate limit and the size of the body."""

    def __init__(
        self, app: ASGIApp, settings: Settings, keys: Keys, rate_limit: RateLimit | None
    ) -> None:
        self._app, self._keys, self._rate_limit = app, keys, rate_limit
        self._limits = body_limits(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or raise the error that refuses it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)  # a WebSocket's route checks the key itself
            return
        path = scope["path"]
        if (self._keys or self._rate_limit) and not is_open(path):
            context = RequestContext.of(scope)
            caller = await self._caller(scope, context)
            if self._rate_limit:
                await count(self._rate_limit, caller, context)
        await self._app(scope, _limited(scope, receive, self._limits.get(path, _FORM_BYTES)), send)

    async def _caller(self, scope: Scope, context: RequestContext) -> str:
        try:
            return self._keys.caller(scope, context)
        except UnauthorisedError:
            if self._rate_limit:  # slows down guessing of keys
                await count(self._rate_limit, f"without a key: {address(scope)}", context)
            raise


def address(scope: Scope) -> str:
    """Return the client's address."""
    client = scope.get("client")
    return str(client[0]) if client else "unknown"


def is_open(path: str) -> bool:
    """Return whether the path needs no key."""
    return path in _OPEN or path.startswith(_OPEN_BELOW)


async def count(rate_limit: RateLimit, caller: str, context: RequestContext) -> None:
    """Count the request against the limits.

    Raises:
        RateLimitedError
    """
    left = await rate_limit.hit(caller)
    if not left:
        return
    context.limits = tuple(
        (f"x-ratelimit-{name}".encode(), str(value).encode())
        for name, value in zip(("limit", "remaining", "reset"), left[:3], strict=True)
    )
    if left.exceeded:
        raise RateLimitedError(left)


def body_limits(settings: Settings) -> dict[str, int]:
    """Return the largest body of each path, in bytes."""
    one = settings.max_image_bytes * 4 // 3 + _FORM_BYTES
    return {
        "/predict": one,
        "/feedback": one,
        "/predict/batch": one * min(_BATCH_IMAGES, settings.max_batch),
        f"/v2/models/{settings.model_name}/infer": settings.max_batch * _V2_BYTES + _FORM_BYTES,
    }


def _limited(scope: Scope, receive: Receive, limit: int) -> Receive:
    """Return a `receive` that raises BodyTooLargeError if the body has more bytes than `limit`.

    Up to twice the limit is read and dropped first: most clients read no response while they send.
    """
    declared = RequestContext.of(scope).headers.get(b"content-length", b"0")
    size = 0

    async def limited() -> Message:
        nonlocal size
        if size == 0 and declared.isdigit() and int(declared[:20]) > 2 * limit:
            raise _too_large(limit)
        message = await receive()
        size += len(message.get("body", b""))
        if size <= limit:
            return message
        while message.get("more_body") and size <= 2 * limit:
            message = await receive()
            size += len(message.get("body", b""))
        raise _too_large(limit)

    return limited


def _too_large(limit: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"the body has more than {limit:,} bytes")
