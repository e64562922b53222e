"""uvicorn's HTTP protocol with the limits that it lacks: on a request's head, on its time, on requests that queue.

Measured on uvicorn 0.54 with httptools: a header line is buffered without bound (100 MB of it took 170 MB of memory),
a connection with half a head stays open for ever, and 250 KB of pipelined requests took 15 MB.
"""

import asyncio
from functools import partial
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from uponce.web.discarding import DISCARD, discard

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class HardenedProtocol(HttpToolsProtocol):
    """Closes connections whose head is larger than `MAX_HEAD_BYTES` or not complete after `HEAD_SECONDS`, and those
    with more than `MAX_PIPELINED` requests waiting for an answer to the one before. Readers that stall are dropped
    after `WRITE_SECONDS`.

    What counts is the bytes since the parser last had something to show for them, so endless chunk extensions and
    trailers end in the same way. The cut-off is exact to one read of the socket. Idle keep-alive connections are the
    business of uvicorn's own timeout.
    """

    MAX_HEAD_BYTES: ClassVar[int] = 64 * 1024
    HEAD_SECONDS: ClassVar[float] = 10.0
    MAX_PIPELINED: ClassVar[int] = 16
    WRITE_SECONDS: ClassVar[float] = 30.0

    _reading_head = True
    _fruitless_bytes = 0
    _body_bytes = 0
    _deadline: asyncio.TimerHandle | None = None
    _write_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._stop_write_deadline()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The reader is behind by the transport's buffer; each `WRITE_SECONDS` it must take some of it."""
        super().pause_writing()
        self._watch_reader()

    def _watch_reader(self) -> None:
        waiting = self.transport.get_write_buffer_size()
        self._write_deadline = self.loop.call_later(self.WRITE_SECONDS, self._check_reader, waiting)

    def _check_reader(self, waited: int) -> None:
        if self.transport.get_write_buffer_size() < waited:
            self._watch_reader()
        else:
            self.transport.abort()

    def resume_writing(self) -> None:
        self._stop_write_deadline()
        super().resume_writing()

    def _stop_write_deadline(self) -> None:
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None

    def data_received(self, data: bytes) -> None:
        if self._reading_head and self._deadline is None:
            self._arm()
        self._fruitless_bytes += len(data)
        super().data_received(data)
        if self._fruitless_bytes > self.MAX_HEAD_BYTES and not self.transport.is_closing():
            self._close(_TOO_LARGE)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._reading_head:  # trailers would otherwise be kept, and nobody reads them
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._reading_head = False
        self._fruitless_bytes = 0
        self._disarm()
        if len(self.pipeline) >= self.MAX_PIPELINED:
            self.transport.abort()
            raise ConnectionAbortedError("too many pipelined requests")  # stops the parser in the midst of a read
        self._body_bytes = 0
        super().on_headers_complete()
        self.scope["extensions"] = {DISCARD: partial(self._discard_rest, self.cycle)}  # type: ignore[dict-item]

    async def _discard_rest(self, cycle: RequestResponseCycle, length: int, idle_seconds: float) -> None:
        """Drop what is still to come of a body of `length` bytes, unseen. Nothing more is read from this connection."""
        if cycle.more_body and not self.transport.is_closing():
            self.flow.pause_reading()
            descriptor = self.transport.get_extra_info("socket").fileno()
            await discard(descriptor, length - self._body_bytes, idle_seconds)

    def on_body(self, body: bytes) -> None:
        self._fruitless_bytes = 0
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._reading_head = True
        self._fruitless_bytes = 0
        super().on_message_complete()

    def _arm(self) -> None:
        self._deadline = self.loop.call_later(self.HEAD_SECONDS, self._late)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        if self._answering():
            self._arm()  # the head is that of a pipelined request; the answer before it comes first
        elif not self.transport.is_closing():
            self._close(_TOO_SLOW if self._fruitless_bytes else b"")

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _close(self, answer: bytes) -> None:
        if not self._answering():
            self.transport.write(answer)
        self.transport.close()
