"""Ctrl-C and polite kills as something to look at, so that what is under way ends in good order."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from types import FrameType
from typing import Any

EXIT_CODE = 130  # as a shell has it for a command that Ctrl-C ended


@contextmanager
def noticed() -> Iterator[Event]:
    """An event that SIGINT or SIGTERM sets; the second of them does what it does elsewhere."""
    event = Event()

    def notice(number: int, _: FrameType | None) -> None:
        event.set()
        signal.signal(number, before[number])

    before: dict[int, Any] = {n: signal.signal(n, notice) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
