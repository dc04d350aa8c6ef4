"""Access control: API keys, rate limits and body limits, checked before all other work."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.settings import Settings
from serve.telemetry.request_context import RequestContext

if TYPE_CHECKING:
    from serve.http.rate_limit import Left, RateLimit

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
        except UnauthorisedError:  # counted too, which slows down guessing of keys
            await self.count(f"without a key: {_address(scope)}", context)
            raise
        await self.count(caller, context)

    async def count(self, caller: str, context: RequestContext) -> None:
        """Count a request of the caller against the rate limit, if there is one."""
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
    """ASGI middleware that checks the key, the rate limit and the size of the body."""

    def __init__(self, app: ASGIApp, settings: Settings, access: Access) -> None:
        self._app, self._access = app, access
        one = settings.max_image_bytes * 4 // 3 + _FORM_BYTES
        infer = f"/v2/models/{settings.model_name}/infer"
        self._limits = {
            "/predict": one,
            "/feedback": one,
            "/predict/batch": one * min(_BATCH_IMAGES, settings.max_batch),
            infer: settings.max_batch * _V2_BYTES + _FORM_BYTES,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or raise the error that refuses it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)  # a WebSocket's route checks the key itself
            return
        path = scope["path"]
        if path not in _OPEN and not path.startswith(_OPEN_BELOW):
            await self._access.admit(scope, RequestContext.of(scope))
        await self._app(scope, _limited(scope, receive, self._limits.get(path, _FORM_BYTES)), send)


def _limited(scope: Scope, receive: Receive, limit: int) -> Receive:
    """Return a `receive` that raises BodyTooLargeError if the body has more bytes than `limit`.

    Up to twice the limit is read and dropped first: most clients read no response while they send.
    """
    declared = RequestContext.of(scope).headers.get(b"content-length", b"0")
    refused = declared.isdigit() and int(declared[:20]) > 2 * limit
    size = 0

    async def limited() -> Message:
        nonlocal size
        if not refused:
            message = await receive()
            size += len(message.get("body", b""))
            while limit < size <= 2 * limit and message.get("more_body"):
                message = await receive()
                size += len(message.get("body", b""))
            if size <= limit:
                return message
        raise BodyTooLargeError(f"the body has more than {limit:,} bytes")

    return limited
