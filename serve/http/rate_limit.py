"""Rate limits per caller, counted in memory or in Redis by the library `limits`."""

from __future__ import annotations

import logging
import math
import time
from typing import NamedTuple

from limits import RateLimitItem, parse_many
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import StorageError
from limits.storage import storage_from_string

from serve.settings import Settings

logger = logging.getLogger(__name__)

_COMPLAINT_SECONDS = 30


class Left(NamedTuple):
    """The nearest limit: the one that leaves the caller the fewest requests."""

    limit: int
    remaining: int
    reset: int  # seconds until the limit is reset
    exceeded: bool


class RateLimit:
    """The limits of `RATE_LIMIT`. If their storage fails, requests are allowed."""

    def __init__(self, settings: Settings) -> None:
        self._limits = parse_many(settings.rate_limit)
        uri = settings.rate_limit_storage
        options = {"implementation": "redispy"} if "redis" in uri.partition(":")[0] else {}
        storage = storage_from_string(f"async+{uri}", wrap_exceptions=True, **options)
        self._strategy = SlidingWindowCounterRateLimiter(storage)
        self._complained = -math.inf

    async def hit(self, caller: str) -> Left | None:
        """Count a request; None if the storage fails."""
        try:
            # Refused requests do not count: they would use up the longer limits.
            within = [await self._strategy.test(limit, caller) for limit in self._limits]
            if all(within):
                within = [await self._strategy.hit(limit, caller) for limit in self._limits]
            pairs = zip(self._limits, within, strict=True)
            left = [await self._left(limit, caller, allowed) for limit, allowed in pairs]
        except StorageError as error:
            if time.monotonic() - self._complained > _COMPLAINT_SECONDS:
                self._complained = time.monotonic()
                logger.warning("rate limits are not enforced, RATE_LIMIT_STORAGE fails: %s", error)
            return None
        return min(left, key=lambda one: (not one.exceeded, one.remaining, -one.reset))

    async def _left(self, limit: RateLimitItem, caller: str, allowed: bool) -> Left:
        stats = await self._strategy.get_window_stats(limit, caller)
        reset = max(1, math.ceil(stats.reset_time - time.time()))
        return Left(limit.amount, max(0, stats.remaining), reset, not allowed)
