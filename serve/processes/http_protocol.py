"""uvicorn's protocols with limits on a request's head, on time and on connections."""

from __future__ import annotations

from asyncio import Transport
from collections import deque
from collections.abc import Callable
from itertools import chain
from time import perf_counter
from typing import Any

from uvicorn._types import ASGI3Application, ASGIReceiveEvent
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from serve.http.body_memory import SMALL_BYTES, BodyMemoryError
from serve.processes.connections import Connections
from serve.processes.http_parser import HttpParser, head_without_offer
from serve.telemetry.request_context import ARRIVED, LATE, new_id

MAX_HEAD_BYTES = 64 * 1024  # of the URL and the headers; also of trailers
_MAX_DROPPED_BYTES = 64 * 2**20  # of what a client still sends after its response
# Longer than a load balancer keeps its connections, or than this process may be held up. When the
# time runs out, a request that has just arrived is lost unread.
KEEP_ALIVE_SECONDS = 75
_IDLE, _HEAD, _BODY, _DROP = range(4)  # idle: also while a request is answered
_GRACE_SECONDS = 5  # for a client to read why its connection is closed
_GOING_AWAY, _TRY_LATER = 1001, 1013  # close codes
_FRAGMENT_BYTES = 64  # in memory, besides its content


_MALFORMED = "400 Bad Request", "the request is not valid HTTP"
_TOO_LARGE = "431 Request Header Fields Too Large", "the headers are too large"
_TOO_SLOW = "408 Request Timeout", "the headers took too long"
_TOO_MANY = (
    "503 Service Unavailable\r\nretry-after: 1",
    "too many connections: try again in a second",
)


def _response(status: str, detail: str) -> bytes:
    """Return a whole response to a request that the application does not see."""
    body = f'{{"detail":"{detail}"}}'
    head = f"HTTP/1.1 {status}\r\nconnection: close\r\nx-request-id: {new_id()}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return (head + body).encode()


class _HeadTooLargeError(Exception):
    """Stops the parser."""


class _Transport:
    """A connection's transport as a response sees it, which closes it while a body may come."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, transport: Transport, close: Callable[[], None]) -> None:
        self.write, self.is_closing, self.close = transport.write, transport.is_closing, close


class HttpProtocol(HttpToolsProtocol):
    """A connection that is closed, after a response, if it is one too many, too large or late.

    Closed while its client sends, it would be reset, and the response lost. So only our side is
    closed, and what still comes is dropped, within limits.
    """

    parser: HttpParser

    def __init__(self, connections: Connections, **given: Any) -> None:  # noqa: ANN401 - uvicorn's
        super().__init__(**given)
        self._all = connections
        self.parser = self._parser()
        self._phase = _IDLE
        self._read = self._bytes = 0  # of the last read; of a head, or of what is dropped
        self.deadline = connections.clock + KEEP_ALIVE_SECONDS

    def _parser(self) -> HttpParser:
        return HttpParser(self, self._should_upgrade, self._ignore_upgrade)

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Parse the head again, without the offer of an upgrade, and then what follows it."""
        method, version = self.parser.get_method(), self.parser.get_http_version()
        self.parser = self._parser()
        self.parser.feed_data(head_without_offer(method, self.url, version, self.headers) + rest)

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Refuse the connection if it is one too many; called by the event loop."""
        super().connection_made(transport)
        self._answered = _Transport(transport, self._close)
        reason = self._all.opened(self, self.client[0] if self.client else "")
        if reason:
            self._all.refuse(self, reason)
            self._refuse(_TOO_MANY)
            self.deadline = self._all.clock + 1
            if self._all.full:
                transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection; called by the event loop."""
        super().connection_lost(exc)
        self._answered.close = self.transport.close  # no cycle of references
        self._all.closed(self)

    def handle_websocket_upgrade(self) -> None:
        """Let the WebSocket's protocol stand for this connection."""
        super().handle_websocket_upgrade()
        self._all.upgraded(self, self.transport.get_protocol())  # type: ignore[arg-type]

    def on_message_begin(self) -> None:
        """Start to count the bytes and the time of a head; called by the parser."""
        self._bytes, self._phase = -self._read, _HEAD  # may begin anywhere in this read
        self.deadline = self._all.clock + self._all.head
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Start to count the time of the body; called by the parser."""
        if len(self.url) + sum(map(len, chain(*self.headers))) > MAX_HEAD_BYTES:
            self._refuse(_TOO_LARGE)
            raise _HeadTooLargeError
        if self.parser.ignoring:
            return
        self._phase, self.deadline = _BODY, self._all.clock + self._all.body
        self._bytes = -self._read
        super().on_headers_complete()
        if self.cycle:
            self.cycle.transport = self._answered  # type: ignore[assignment]

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Note when the request begins to wait for its turn; called by uvicorn."""
        cycle.scope[ARRIVED] = perf_counter()  # type: ignore[literal-required]
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        """Start to count what may be trailers; called by the parser."""
        self._bytes = -self._read
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Stop counting; called by the parser."""
        if self.parser.ignoring:
            return
        # uvicorn's timer ends what is idle, but for one that sends empty lines.
        self._phase, self.deadline = _IDLE, self._all.clock + 2 * KEEP_ALIVE_SECONDS
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Parse the data, and refuse a head that is too large; called by the event loop."""
        self._read = len(data)
        if self._phase == _DROP:
            self._bytes += self._read
            if self._bytes > _MAX_DROPPED_BYTES:
                self.transport.abort()
            return
        super().data_received(data)
        if self._phase in (_HEAD, _BODY):
            self._bytes += self._read
            if self._bytes > MAX_HEAD_BYTES:
                self._refuse(_TOO_LARGE)

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser cannot read; called by uvicorn."""
        if self._phase != _DROP:  # a head that is too large has its response
            self._refuse(_MALFORMED)

    def _refuse(self, response: tuple[str, str]) -> None:
        """Give the connection its last response; the application gives no other."""
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.deadline = self._all.clock + _GRACE_SECONDS
        self.transport.write(_response(*response))
        self._drop()

    def _close(self) -> None:
        """Close the connection after a response; called by uvicorn."""
        if self._phase in (_HEAD, _BODY):
            self._drop()
        elif self._phase == _IDLE:
            self.transport.close()

    def _drop(self) -> None:
        """Close our side, and drop what comes until the client closes or it is too much or late."""
        if self.transport.is_closing():
            return
        self._phase, self._bytes = _DROP, 0
        self.pipeline.clear()
        self.flow.resume_reading()
        self.transport.write_eof()

    def too_late(self) -> None:
        """Refuse what takes too long; called by the sweep."""
        answering = self.cycle is not None and not self.cycle.response_complete
        self.deadline = self._all.clock + _GRACE_SECONDS
        if self._phase == _DROP or self.transport.is_closing():
            self.transport.abort()
        elif answering and self.flow.write_paused:
            self.transport.abort()  # its client does not read
        elif self._phase == _BODY and answering and self.cycle.more_body and not self.pipeline:
            self._all.refuse(self, "body_seconds")
            self.cycle.scope[LATE] = True  # type: ignore[literal-required]
            self.cycle.more_body = False
            self.cycle.message_event.set()
        elif not answering:  # else the time is ours
            if self._phase == _HEAD:
                self._all.refuse(self, "head_seconds")
                self._refuse(_TOO_SLOW)
                return
            if self._phase == _BODY:  # of a request that has its response
                self._all.refuse(self, "body_seconds")
            self.transport.close()


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """A WebSocket that is closed if it is idle, or if a message takes too long."""

    def __init__(self, connections: Connections, **given: Any) -> None:  # noqa: ANN401 - uvicorn's
        super().__init__(**given)
        self._all, self._partial = connections, 0  # bytes of a message that is not complete
        self._fragments = 0  # of them, in fragments after the first
        self._messages: deque[int] = deque()  # bytes of those that have no answer yet
        self._answering, self._held = False, 0
        self.deadline = self._idle_until = connections.clock + connections.idle

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection; called by the event loop."""
        super().connection_lost(exc)
        self._all.bodies.give_back(self._held)
        self._held = 0
        self._all.closed(self)

    def handle_cont(self, event: Frame) -> None:
        """Count the bytes of a fragment; called by the parser."""
        self._fragments += len(event.data) + _FRAGMENT_BYTES
        super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        """Hand over a message; it ends the time that the WebSocket is idle."""
        self._idle_until, self._partial = self._all.clock + self._all.idle, 0
        self._messages.append(len(self.frames[0]) + self._fragments)
        self._fragments = 0
        super().send_receive_event_to_app()

    def data_received(self, data: bytes) -> None:
        """Parse the data, and count the time of a message; called by the event loop."""
        super().data_received(data)
        began, self._partial = self._partial, len(self.conn.reader.buffer)
        if self.frames:
            self._partial += len(self.frames[0]) + self._fragments
        try:
            self._hold()
        except BodyMemoryError as error:
            self._close(_TRY_LATER, "max_body_memory", str(error))
        if not self._partial:
            self.deadline = self._idle_until
        elif not began:
            self.deadline = self._all.clock + self._all.body

    def too_late(self) -> None:
        """Close the WebSocket; called by the sweep."""
        self.deadline = self._all.clock + _GRACE_SECONDS
        if self.close_sent or not self.handshake_complete:
            self.transport.abort()
            return
        reason = "body_seconds" if self._partial else "idle_seconds"
        self._close(_GOING_AWAY, reason, f"closed after {reason.upper()}")

    async def receive(self) -> ASGIReceiveEvent:
        """Return the next message, and give back the memory of the one before."""
        if self._answering:
            self._messages.popleft()
            self._hold()
        message = await super().receive()
        self._answering = message["type"] == "websocket.receive"
        return message

    def _hold(self) -> None:
        """Hold memory for all that was received and is not answered."""
        size = self._partial + sum(self._messages)
        if size > self._held:
            self._all.bodies.take(size - self._held, small=size <= SMALL_BYTES)
        else:
            self._all.bodies.give_back(self._held - size)
        self._held = size

    def _close(self, code: int, reason: str, text: str) -> None:
        if self.close_sent or self.transport.is_closing():
            return
        self._all.refuse(self, reason)
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code})
        self.conn.send_close(code, text)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.transport.close()
