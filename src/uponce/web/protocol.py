"""uvicorn's HTTP protocol with the two limits that it lacks: on the size of a request's head, and on its time.

Measured on uvicorn 0.54 with httptools: a header line is buffered without bound (100 MB of it took 170 MB of memory),
and a connection with half a head stays open for ever.
"""

import asyncio
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class HardenedProtocol(HttpToolsProtocol):
    """Closes connections whose head is larger than `MAX_HEAD_BYTES` or not complete after `HEAD_SECONDS`.

    Bytes of pipelined requests count towards the head they arrive with, so the cut-off is a little above the limit
    rather than exact. Idle keep-alive connections are uvicorn's own timeout's business.
    """

    MAX_HEAD_BYTES: ClassVar[int] = 64 * 1024
    HEAD_SECONDS: ClassVar[float] = 10.0

    _reading_head = True
    _head_bytes = 0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._reading_head:
            if self._deadline is None:
                self._arm()
            self._head_bytes += len(data)
            if self._head_bytes > self.MAX_HEAD_BYTES + len(data) - min(len(data), self.MAX_HEAD_BYTES):
                self._refuse_if_still_head(data)
                return
        super().data_received(data)

    def _refuse_if_still_head(self, data: bytes) -> None:
        """One read may hold a whole small head and much body, so the parser decides before we do."""
        super().data_received(data)
        if self._reading_head and not self.transport.is_closing():
            self._close(_TOO_LARGE)

    def on_headers_complete(self) -> None:
        self._reading_head = False
        self._head_bytes = 0
        self._disarm()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._reading_head = True
        super().on_message_complete()

    def _arm(self) -> None:
        self._deadline = self.loop.call_later(self.HEAD_SECONDS, self._late)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        if self._reading_head and not self.transport.is_closing():
            self._close(_TOO_SLOW if self._head_bytes else b"")

    def _close(self, answer: bytes) -> None:
        if answer and self.cycle is None:
            self.transport.write(answer)
        self.transport.close()
