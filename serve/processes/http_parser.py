"""httptools' parser, but an upgrade that is not to a WebSocket is ignored (RFC 9110, 7.8).

Java's HttpClient offers HTTP/2 with each first request. httptools stops at such a head: it would
give the application no body (https://github.com/Kludex/uvicorn/issues/2722).
"""

from __future__ import annotations

from collections.abc import Callable

import httptools

_OFFER = (b"upgrade", b"http2-settings")


class HttpParser(httptools.HttpRequestParser):
    """Calls `ignore` with the data after a head that offers an upgrade, unless `wanted` is true."""

    def __init__(
        self, protocol: object, wanted: Callable[[], bool], ignore: Callable[[bytes], None]
    ) -> None:
        super().__init__(protocol)
        self._wanted, self._ignore = wanted, ignore
        # As uvicorn has it: the first of several requests in one packet is answered.
        self.set_dangerous_leniencies(lenient_data_after_close=True)

    @property
    def ignoring(self) -> bool:
        """Whether the head that was parsed last offers an upgrade that is ignored."""
        return bool(self.should_upgrade()) and not self._wanted()

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]  # uvicorn has only bytes
        """Parse the data; raise HttpParserUpgrade only for an upgrade that is wanted."""
        try:
            super().feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._wanted():
                raise
            self._ignore(data[upgrade.args[0] :])


def head_without_offer(
    method: bytes, url: bytes, version: str, headers: list[tuple[bytes, bytes]]
) -> bytes:
    """Return the head of a request without what offers an upgrade; names are in lower case."""
    lines = [b"%b %b HTTP/%b" % (method, url, version.encode())]
    lines += [b"%b: %b" % header for header in headers if header[0] not in _OFFER]
    return b"\r\n".join([*lines, b"", b""])
