"""Work queues: threads for work that would block the event loop, with limits on waiting work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

Result = TypeVar("Result")
Check = Callable[[], Awaitable[None]]  # raises if the work is no longer needed

MAX_ITEMS = 256  # waiting in one work queue
MAX_WAITING_BYTES = 64 * 2**20  # of all waiting requests: six of the largest bodies


class BusyError(Exception):
    """More work is waiting than this worker can hold."""

    def __init__(self) -> None:
        super().__init__("too busy: try again in a second")


class WorkQueue:
    """Work queue: one thread that does its work in order of arrival."""

    def __init__(self, name: str, max_pixels: int) -> None:
        self._thread = ThreadPoolExecutor(1, name)
        self._turns = asyncio.Semaphore(2)  # one runs, the next one is ready to start
        self._max_pixels = max_pixels
        self._items = self._pixels = 0

    async def run(self, work: Callable[[], Result], pixels: int, check: Check | None) -> Result:
        """Do the work in the thread and in this context, unless `check` raises at its turn.

        `pixels`: cost of the work. An idle queue takes any; a full one raises BusyError.
        """
        full = self._items >= MAX_ITEMS or self._pixels + pixels > self._max_pixels
        if self._items and full:
            raise BusyError
        self._items += 1
        self._pixels += pixels
        try:
            waits = self._turns.locked()
            async with self._turns:
                if waits and check:
                    await check()
                return await asyncio.get_running_loop().run_in_executor(
                    self._thread, copy_context().run, work
                )
        finally:
            self._items -= 1
            self._pixels -= pixels

    def close(self) -> None:
        """Wait for the work that the thread is doing."""
        self._thread.shutdown()


class WorkQueues:
    """A work queue for each kind of work, and one limit on the bytes that wait in all of them.

    Batches share one thread: two at once would take more than twice as long, because they contend
    for Python's global lock (GIL).
    """

    def __init__(self, max_pixels: int) -> None:
        self.bodies = WorkQueue("bodies", max_pixels)
        self.pictures = WorkQueue("pictures", max_pixels)
        self.batches = WorkQueue("batches", max_pixels)
        self._waiting = 0

    async def run(
        self,
        queue: WorkQueue,
        work: Callable[[], Result],
        size: int,
        pixels: int,
        check: Check | None = None,
    ) -> Result:
        """Do work of `size` bytes and a cost of `pixels` in a queue, or raise BusyError."""
        if self._waiting and self._waiting + size > MAX_WAITING_BYTES:
            raise BusyError
        self._waiting += size
        try:
            return await queue.run(work, pixels, check)
        finally:
            self._waiting -= size

    def close(self) -> None:
        """Wait for the work that the threads are doing."""
        for queue in (self.bodies, self.pictures, self.batches):
            queue.close()
