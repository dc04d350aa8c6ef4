"""The open connections of a worker: caps on their number, and limits on the time of each phase.

A sweep each second closes what is late: a timer for each phase would cost every request.
"""

from __future__ import annotations

import logging
import resource
import time
from collections import Counter
from math import inf
from typing import Protocol

from serve.http.body_memory import BodyMemory
from serve.processes.proxies import TrustedHosts
from serve.settings import Settings
from serve.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

SPARE = 128  # connections beyond the cap that wait for their client to read why
_OTHER_FILES = 128  # descriptors for anything else
_SWEEP_SECONDS = 1.0
_QUIET_SECONDS = 30  # between two lines of the log with the same reason


class Connection(Protocol):
    """What a sweep needs of a connection."""

    deadline: float  # of the clock of `Connections`

    def too_late(self) -> None:
        """End the phase that should have ended before the deadline."""


class Connections:
    """The open connections, by protocol object, with their peers' addresses."""

    def __init__(
        self, settings: Settings, metrics: Metrics, proxies: TrustedHosts, bodies: BodyMemory
    ) -> None:
        self._settings, self._metrics, self._proxies = settings, metrics, proxies
        self.bodies = bodies
        self._open: dict[Connection, str] = {}
        self._addresses: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()  # by reason, since the last line of the log
        self._quiet: dict[str, float] = {}  # until when
        self._swept = time.monotonic()
        # Seconds; it stands still while the process does. A phase may end a sweep later, so that
        # none is ended early.
        self.clock = 0.0
        self.head = settings.head_seconds + _SWEEP_SECONDS
        self.body = settings.body_seconds + _SWEEP_SECONDS
        self.idle = settings.idle_seconds + _SWEEP_SECONDS

    def opened(self, connection: Connection, address: str) -> str:
        """Add a connection; return the cap that it exceeds, or an empty string."""
        self._open[connection] = address
        self._addresses[address] += 1
        self._metrics.connected(len(self._open))
        if len(self._open) > self._settings.max_connections:
            return "max_connections"
        most = self._settings.max_connections_per_address
        if self._addresses[address] > most and address not in self._proxies:
            return "max_connections_per_address"
        return ""

    @property
    def full(self) -> bool:
        """Whether there is no room even for connections that are refused."""
        return len(self._open) > self._settings.max_connections + SPARE

    def upgraded(self, connection: Connection, other: Connection) -> None:
        """Let another protocol object stand for the connection."""
        self._open[other] = self._open.pop(connection)

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        address = self._open.pop(connection)
        self._addresses[address] -= 1
        if not self._addresses[address]:
            del self._addresses[address]
        self._metrics.connected(len(self._open))

    def refuse(self, connection: Connection, reason: str) -> None:
        """Count a connection that is closed because of the setting `reason`."""
        self._metrics.refused(reason)
        self._refused[reason] += 1
        if self._quiet.get(reason, -inf) <= self.clock:
            number, address = self._refused.pop(reason), self._open[connection]
            self._quiet[reason] = self.clock + _QUIET_SECONDS
            logger.warning("%s: closed %d, now one of %s", reason.upper(), number, address)

    def sweep(self) -> None:
        """Advance the clock, and end what is late; called once a second."""
        now = time.monotonic()
        self.clock += min(now - self._swept, 2 * _SWEEP_SECONDS)
        self._swept = now
        self._metrics.holding(self.bodies.held)
        for connection in [c for c in self._open if c.deadline < self.clock]:
            connection.too_late()


def allow_files(settings: Settings) -> None:
    """Raise this process's limit of open files to what `MAX_CONNECTIONS` needs."""
    needed = settings.max_connections + SPARE + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    possible = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
    if possible < needed:
        logger.warning("MAX_CONNECTIONS needs %d open files, %d are allowed", needed, possible)
