"""Decode request bodies by their Content-Encoding (RFC 9110, section 8.4): gzip, or none."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from serve.http.request_body import MalformedError

ACCEPTED = "gzip"
_STEP = 2**20  # bytes that are decoded at once: 2 to 5 ms
_GZIP = 31  # zlib's `wbits` of a gzip stream with the largest window


class UnsupportedEncodingError(Exception):
    """The body has a Content-Encoding that is not read."""

    def __init__(self, encoding: str) -> None:
        super().__init__(f"cannot read the Content-Encoding {encoding[:60]!r}: send gzip, or none")


class Gzip:
    """A decoder of one gzip stream, which comes in parts."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(_GZIP)

    def decode(self, data: bytes, *, last: bool) -> Iterator[bytes]:
        """Yield what the next part decodes to, some bytes at a time; may raise MalformedError."""
        whole = False
        while not whole:
            try:
                found = self._stream.decompress(data, _STEP)
            except zlib.error as error:
                raise MalformedError(
                    "the body is not gzip, as its Content-Encoding says"
                ) from error
            data = self._stream.unconsumed_tail
            whole = not data and len(found) < _STEP
            yield found
        if self._stream.unused_data or (last and not self._stream.eof):
            raise MalformedError("the body is not one whole gzip stream")


def decoder(encoding: str) -> Gzip | None:
    """Return a decoder for this header; None if the body stands as it is.

    Raises UnsupportedEncodingError.
    """
    if encoding.lower() == "identity":
        return None
    if encoding.lower() not in ("gzip", "x-gzip"):
        raise UnsupportedEncodingError(encoding)
    return Gzip()
