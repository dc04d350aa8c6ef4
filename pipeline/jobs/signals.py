"""SIGINT (Ctrl-C) and SIGTERM as an event, so that running jobs shut down cleanly."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from types import FrameType
from typing import Any

EXIT_CODE = 130  # the shell's code for a command that Ctrl-C ended


@contextmanager
def noticed() -> Iterator[Event]:
    """Yield an event that SIGINT or SIGTERM sets; a second one of them acts as it did before."""
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


@contextmanager
def ignored() -> Iterator[None]:
    """Ignore SIGINT: another Ctrl-C must not interrupt the clean-up after the first."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets signals
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
