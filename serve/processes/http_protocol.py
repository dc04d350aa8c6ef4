"""uvicorn's HTTP protocol with one write for the head and the body of a response, and a limit.

uvicorn writes them apart. On small responses the second call into the kernel, and the client's
waking up for half an answer, cost a tenth of the whole request. Nor does it limit what comes
before the body, of which it holds all.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_HEAD = b"HTTP/1.1 "
MAX_HEAD_BYTES = 64 * 1024  # bytes of a request before its body, but for what one read brings
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n"
    b"content-type: application/json\r\ncontent-length: 38\r\n\r\n"
    b'{"detail":"the headers are too large"}'
)
_INTERIM = b"HTTP/1.1 1"  # 100 has no body; after 101 comes another protocol


class Joined:
    """A transport that keeps a response's head until its body comes."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._write = transport.write
        self._head = b""

    def write(self, data: bytes) -> None:
        """As the transport's."""
        if self._head:
            head, self._head = self._head, b""
            self._write(head + data)
        elif data.startswith(_HEAD) and not data.startswith(_INTERIM):
            self._head = data
        else:
            self._write(data)

    def flush(self) -> None:
        """Writes a head that has no body."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        """As the transport's."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a transport has
        return getattr(self._transport, name)


class Protocol(HttpToolsProtocol):
    """A connection whose responses leave in one piece."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by the event loop."""
        self._joined, self._head_bytes, self._in_head = Joined(transport), 0, False
        super().connection_made(self._joined)  # type: ignore[arg-type]

    def on_message_begin(self) -> None:
        """Called by the parser."""
        self._head_bytes, self._in_head = 0, True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and not self._joined.is_closing():
                self._joined.write(_TOO_LARGE)
                self._joined.close()

    def on_response_complete(self) -> None:
        """Called at the end of a response, which has no body if a HEAD asked for it."""
        self._joined.flush()
        super().on_response_complete()
