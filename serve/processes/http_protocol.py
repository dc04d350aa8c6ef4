"""uvicorn's HTTP protocol with a limit on the request's head (request line and headers).

uvicorn itself keeps a head of any length in memory.
"""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024  # checked after each read, so one read may go beyond it
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n"
    b"content-type: application/json\r\ncontent-length: 38\r\n\r\n"
    b'{"detail":"the headers are too large"}'
)


class Protocol(HttpToolsProtocol):
    """A connection that is closed, after status 431, if the head of a request is too large."""

    _head_bytes, _in_head = 0, False

    def on_message_begin(self) -> None:
        """Start to count the bytes of a head; called by the parser."""
        self._head_bytes, self._in_head = 0, True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Stop counting; called by the parser."""
        self._in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Parse the data, and refuse a head that is too large; called by the event loop."""
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.transport.write(_TOO_LARGE)
                self.transport.close()
