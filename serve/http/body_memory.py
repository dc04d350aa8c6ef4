"""A limit on the memory that the bodies of all requests of a worker take together."""

from __future__ import annotations

SMALL_BYTES = 64 * 1024
_RESERVE = 8  # this part of the memory is for small bodies alone


class BodyMemoryError(Exception):
    """The bodies of other requests take all the memory there is for bodies."""

    def __init__(self) -> None:
        super().__init__("too many bytes at once: try again in a second")


class BodyMemory:
    """The bytes of bodies that are being read or worked on.

    `most`: the largest number of bytes. If no body is held, one of any size is.
    """

    def __init__(self, most: int) -> None:
        self._most, self.held = most, 0

    def take(self, size: int, *, small: bool) -> None:
        """Hold `size` bytes more, of a `small` body or of another; may raise BodyMemoryError."""
        room = self._most if small else self._most - self._most // _RESERVE
        if self.held + size > room and (small or self.held > self._most // _RESERVE):
            raise BodyMemoryError
        self.held += size

    def give_back(self, size: int) -> None:
        """Hold `size` bytes less."""
        self.held -= size
