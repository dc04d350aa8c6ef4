"""A thread for what would hold up the event loop, and what waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")
Check = Callable[[], Awaitable[None]]  # raises if the work need not be done any more

MAX_ITEMS = 256  # items that may wait


class BusyError(Exception):
    """More work is waiting than this worker can hold."""

    def __init__(self) -> None:
        super().__init__("too busy: try again in a second")


class WorkQueue:
    """One thread, whose work is done in the order in which it came."""

    def __init__(self, name: str, most_pixels: int) -> None:
        self._thread = ThreadPoolExecutor(1, name)
        self._turns = asyncio.Semaphore(2)  # the second lies ready for when the first is done
        self._most_pixels = most_pixels
        self._items = self._pixels = 0

    async def run(self, work: Callable[[], Result], pixels: int, check: Check | None) -> Result:
        """Does the work, unless `check` raises when its turn comes.

        Raises:
            BusyError: too much is waiting already.
        """
        full = self._items >= MAX_ITEMS or self._pixels + pixels > self._most_pixels
        if self._items and full:
            raise BusyError
        self._items += 1
        self._pixels += pixels
        try:
            waits = self._turns.locked()
            async with self._turns:
                if waits and check:
                    await check()
                return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            self._items -= 1
            self._pixels -= pixels

    def close(self) -> None:
        """Waits for what the thread is at."""
        self._thread.shutdown()
