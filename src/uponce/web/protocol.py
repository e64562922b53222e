"""uvicorn's HTTP protocol with limits that uvicorn lacks, and with faster ways for small bodies, large bodies and GETs.

Measured on uvicorn 0.54 with httptools: a header line is buffered without bound (100 MB took 170 MB of memory). A
connection with half a head stays open for ever. 250 KB of pipelined requests took 15 MB.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from uponce.app.attempts import network_of
from uponce.core.policy import Limits
from uponce.web import heads
from uponce.web.app import TrustedProxies
from uponce.web.connections import Connections, limit_unsent
from uponce.web.discarding import CYCLE, DISCARD, Dropped, discard, duplicate
from uponce.web.lingering import Lingering
from uponce.web.receiving import BLOCK_BYTES, LargeBody

_MAX_PIPELINED = 16
_WRITE_BUFFER_BYTES = 16 * 1024
# A body that takes longer is read while it arrives, under all limits of a slow upload.
_GATHER_SECONDS = 1.0
_LAST_REQUEST_SECONDS = 0.25  # once the server stops
_MOST_GATHERED_BYTES = 64 * 1024 * 1024
_MOST_DROPPED_BYTES = 4 * 1024 * 1024  # after the last request that gets an answer
_LENGTH_DIGITS = 20
_FRAMING = (b"content-length", b"transfer-encoding")


class HardenedProtocol(HttpToolsProtocol):
    """Refuses connections that would cost memory or time before there is a request.

    The protocol refuses a head larger than `max_head_bytes`, and addresses that are too long. It refuses a head that is
    not complete after `head_seconds`, and more than 16 requests that wait for an earlier answer. That answer comes
    first, and then ends the connection. The protocol ends a connection whose client reads nothing for `write_seconds`.
    uvicorn makes the connections, so `limits` and `proxies` belong to the class: set them first.

    One address has `max_connections_per_address` connections, see connections.py. Trusted proxies have no bound.

    The head's limit counts the bytes since the parser last produced something, so endless chunk extensions and trailers
    end in the same way. The limit is exact to one read of the socket. uvicorn's timeout ends idle connections.
    """

    limits: ClassVar[Limits] = Limits()
    proxies: ClassVar[TrustedProxies] = TrustedProxies()
    GETS_PER_TURN: ClassVar[int] = 16

    _queued: ClassVar[deque[Callable[[object], None]]] = deque()  # for all connections of this process
    _connections: ClassVar[Connections] = Connections()
    _lingering: ClassVar[Lingering] = Lingering()
    _gathered_bytes: ClassVar[int] = 0  # for all requests of this process that wait for their body
    _gathered = _fruitless_bytes = body_bytes = _wire_bytes = 0
    _chunks: list[bytes]
    _gathering: tuple[RequestResponseCycle, ASGI3Application, asyncio.TimerHandle] | None = None
    _network = ""
    _reading_head = True
    _repeating_head = False
    _ending = False  # the answer of the running request ends the connection; further bytes are dropped
    _ended = False  # the last answer has been sent; further bytes are dropped
    _stopping = False  # the server stops: the next answer is the last
    _large: LargeBody | None = None
    _running: RequestResponseCycle | None = None  # `cycle` is the newest request, which may wait for this one
    _deadline: asyncio.TimerHandle | None = None
    _write_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        limit_unsent(transport.get_extra_info("socket"))
        self._arm()
        self._take_place()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._stop_write_deadline()
        self._silence()
        self._connections.remove(self, self._network)
        self._lingering.discard(self.transport)
        super().connection_lost(exc)
        self._stop_gathering()

    def shutdown(self) -> None:
        """End the connection after its answers. Keep an idle one a moment: a request may be on its way, or unread."""
        self._stopping = True
        if self.is_answering():
            super().shutdown()
        else:
            self.loop.call_later(_LAST_REQUEST_SECONDS, super().shutdown)

    def eof_received(self) -> bool:  # type: ignore[override]
        """End a connection whose client sends no more. Return whether it stays open for the last answers.

        Requests that have arrived whole still get their answers. The last answer then ends the connection.
        """
        self._end(b"", [each for each in self.pipeline if not each[0].more_body])
        return not (self._ended or self.transport.is_closing())

    def _take_place(self) -> None:
        address = self.client[0] if self.client else ""
        network, limit = network_of(address), self.limits.max_connections_per_address
        if self.proxies.name(address) or not network:
            return
        if self._connections.add(self, network, limit):
            self._network = network
        else:
            self._end(heads.refusal_of_connections(limit))

    def pause_writing(self) -> None:
        """Watch a client that reads too slowly. It must take some of the unsent bytes every `write_seconds`."""
        super().pause_writing()
        self._stop_write_deadline()
        self._watch_reader()

    def resume_writing(self) -> None:
        self._stop_write_deadline()
        self._watch_reader()
        super().resume_writing()

    def _watch_reader(self) -> None:
        if self._write_deadline is None:
            state = self.unsent_bytes(), self._running, self.is_answering()
            self._write_deadline = self.loop.call_later(self.limits.write_seconds, self._check_reader, *state)

    def _check_reader(self, before: int, running: RequestResponseCycle | None, was_answering: bool) -> None:
        """End a connection whose client has taken nothing since, unless more bytes may have replaced those it took."""
        self._write_deadline = None
        unsent, is_answering = self.unsent_bytes(), self.is_answering()
        is_same = running is self._running and was_answering is is_answering
        if is_same and (self.flow.write_paused or not is_answering) and 0 < before <= unsent:
            self.abort()
        elif unsent or is_answering:
            self._watch_reader()

    def _stop_write_deadline(self) -> None:
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None

    def data_received(self, data: bytes) -> None:
        self._fruitless_bytes += len(data)
        self._wire_bytes += len(data)
        if self._ending or self._ended:
            if self._fruitless_bytes > _MOST_DROPPED_BYTES:
                self.flow.pause_reading()
                if self._ended:
                    self.transport.close()
            return
        self._unset_keepalive_if_required()
        self._parse(data)
        if self._reading_head and self._fruitless_bytes and self._deadline is None:
            self._arm()
        if self._fruitless_bytes > (limit := self.limits.max_head_bytes):
            self._end(heads.refusal_of_size(limit))
        elif not self._reading_head and self._wire_bytes - self.body_bytes > limit + self.body_bytes // 4:
            self._end(heads.SMALL_CHUNKS)  # each costs the loop a call

    def _parse(self, data: bytes) -> None:
        """Feed the parser. Ignore Upgrade, also to HTTP/2 (RFC 9110 §7.8): Java's client sends it by default."""
        while data:
            try:
                self.parser.feed_data(data)
                return
            except HttpParserUpgrade as upgrade:
                data = self._rest_of_upgrade() + data[upgrade.args[0] :]
            except HttpParserError as error:
                self._end(heads.refusal_of(error))
                return

    def _rest_of_upgrade(self) -> bytes:
        """Begin a new parser, and return its head. The old one takes what follows an Upgrade for another protocol."""
        framing = b"".join(b"%b: %b\r\n" % pair for pair in self.headers if pair[0] in _FRAMING)
        return self._begin_parser(b"" if self._reading_head else framing)

    def _begin_parser(self, framing: bytes) -> bytes:
        """Return the head that gives a new parser the length of the body, and that its other callbacks ignore.

        Without framing the request has no body, and the next request follows.
        """
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._repeating_head = bool(framing)
        return framing and b"POST / HTTP/1.1\r\n" + framing + b"\r\n"

    def on_message_begin(self) -> None:
        if not self._repeating_head:
            super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._repeating_head:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(value) > _LENGTH_DIGITS and name.lower() == b"content-length":  # llhttp reads any number of zeros
            raise HttpParserError("the length has too many digits")
        if self._reading_head:  # trailers would otherwise be kept, and no code reads them
            if len(self.headers) == self.limits.max_headers:
                self._end(heads.refusal_of_number(self.limits.max_headers))
                raise ConnectionAbortedError("too many headers")  # stops the parser during a read
            super().on_header(name, value.rstrip(b" \t"))  # the parser drops only the spaces before it

    def on_headers_complete(self) -> None:
        if self._repeating_head:
            self._repeating_head = False
            return
        self._reading_head = False
        self._fruitless_bytes = 0
        self._disarm()
        if len(self.pipeline) >= _MAX_PIPELINED:
            self._end(b"")
            raise ConnectionAbortedError("too many pipelined requests")
        if len(self.url) > heads.MAX_PATH_BYTES and (refusal := heads.refusal_of_address(self.url)):
            self._end(refusal)
            raise ConnectionAbortedError("the address is too long")
        self.body_bytes = self._wire_bytes = 0
        super().on_headers_complete()
        self.cycle.keep_alive = self.cycle.keep_alive and not self._stopping
        self._large = None
        extensions = self.scope["extensions"] = {CYCLE: self.cycle}  # type: ignore[dict-item]
        self._framing = {name: value for name, value in self.headers if name in _FRAMING}  # it allows one length
        if not self._framing:
            return
        if (length := self._plain_length()) > BLOCK_BYTES:
            self._large = LargeBody(self, self.cycle, length)
            self.cycle.receive = self._large.receive  # type: ignore[method-assign, assignment]
        extensions[DISCARD] = partial(self._discard_rest, self.cycle)  # type: ignore[assignment]

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Start an upload at once, and a few GETs in each turn of the loop: no upload waits for thousands of them."""
        self._running = cycle
        if cycle.scope["method"] not in ("GET", "HEAD"):
            if cycle.more_body and self._gather(cycle):
                self._gathering = cycle, app, self.loop.call_later(_GATHER_SECONDS, self._stop_gathering)
            else:
                super()._start_asgi_task(cycle, app)
            return
        self._queued.append(partial(self._start_get, cycle, app))
        if len(self._queued) == 1:
            self.loop.call_soon(self._start_queued)

    def _gather(self, cycle: RequestResponseCycle) -> bool:
        """Return whether the request waits for its whole body. A small body is then read in one step."""
        length = next((value for name, value in cycle.scope["headers"] if name == b"content-length"), b"")
        if cycle.waiting_for_100_continue or not length.isdigit():
            return False
        size = HardenedProtocol._gathered_bytes + int(length)
        if not 0 < int(length) <= self.limits.small_body_bytes or size > _MOST_GATHERED_BYTES:
            return False
        HardenedProtocol._gathered_bytes = size
        # `cycle.body` has the bytes that arrived while the request before this one got its answer.
        self._gathered, self._chunks = int(length), [bytes(cycle.body)] if cycle.body else []
        return True

    def _stop_gathering(self) -> None:
        """Start the request: its body has arrived, or is too slow to wait for in memory, or its client has gone."""
        if self._gathering is None:
            return
        (cycle, app, timer), self._gathering = self._gathering, None
        timer.cancel()
        HardenedProtocol._gathered_bytes -= self._gathered
        cycle.body, self._chunks = b"".join(self._chunks), []  # type: ignore[assignment]
        cycle.message_event.set()  # it takes what has arrived now, not with the next byte
        super()._start_asgi_task(cycle, app)

    def _start_get(self, cycle: RequestResponseCycle, app: ASGI3Application, turn: object) -> None:
        """Start a task unless the application answers at once, see express.py."""
        express = getattr(app, "express", None)
        rest = app if express is None else express(cycle, turn)
        if rest is not None:
            super()._start_asgi_task(cycle, rest)

    def _start_queued(self) -> None:
        turn = object()
        try:
            for _ in range(min(self.GETS_PER_TURN, len(self._queued))):
                try:  # it stays in the queue until it has begun: with an empty one, a GET behind it would come here too
                    self._queued[0](turn)
                finally:
                    self._queued.popleft()
        finally:
            if self._queued:
                self.loop.call_soon(self._start_queued)

    def _plain_length(self) -> int:
        """Return the Content-Length of a body that is on the socket without any coding. Return 0 for any other body."""
        coded = b"transfer-encoding" in self._framing or self.scheme != "http"
        return 0 if coded else int(self._framing.get(b"content-length", 0))

    def go_on_parsing(self, body_bytes: int) -> None:
        head = self._begin_parser(b"content-length: %d\r\n" % body_bytes)
        self.parser.feed_data(head)

    def on_response_complete(self) -> None:
        if self._large is not None and not self.transport.is_closing():
            self._large.end()
        if not self._reading_head and not self.pipeline:
            self._arm()  # no request waits any more for the rest of this body
        self._watch_reader()
        super().on_response_complete()

    async def _discard_rest(self, cycle: RequestResponseCycle, length: int, idle: float, dropped: Dropped) -> bool:
        """Drop the rest of a body of `length` bytes. Read nothing else from this connection."""
        cycle.keep_alive = False  # the parser does not get these bytes
        if not cycle.more_body or self._ended or self.transport.is_closing():
            dropped(len(cycle.body))
            return True
        source = duplicate(self.transport.get_extra_info("socket").fileno())
        if source is None:
            return False
        with source:
            self.flow.pause_reading()
            dropped(len(cycle.body))
            if self._large is not None:
                dropped(self._large.unread_bytes)
                self._large.close()
            await discard(source, length - self.body_bytes, idle, dropped)
        return True

    def on_body(self, body: bytes) -> None:
        self._fruitless_bytes = 0
        self.body_bytes += len(body)
        if self._gathering is not None and self._gathering[0] is self.cycle:
            self._chunks.append(body)  # without uvicorn's pause after 64 KiB, and copied once
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade() and self._framing:
            return  # the body is still to come, through another parser
        self._reading_head = True
        self._fruitless_bytes = 0
        super().on_message_complete()
        if self._deadline is not None:  # the answer came before the end of the body
            self._arm()
        if self._gathering is not None and self._gathering[0] is self.cycle:
            self._stop_gathering()

    def _arm(self) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(self.limits.head_seconds, self._late)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        if self.is_answering():
            self._arm()  # the head belongs to a pipelined request; the answer before it comes first
        else:
            self._end(heads.refusal_of_slowness(self.limits.head_seconds) if self._fruitless_bytes else b"")

    def is_answering(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def unsent_bytes(self) -> int:
        return self.transport.get_write_buffer_size()

    def abort(self) -> None:
        self._silence()
        self.transport.abort()

    def _silence(self) -> None:
        """Keep the running request from writing to a connection that is gone: the write would raise."""
        if self._running is not None:
            self._running.disconnected = True
            self._running.waiting_for_100_continue = False
            self._running.message_event.set()
            self._running = None

    def _end(self, refusal: bytes, queued: Sequence[tuple[RequestResponseCycle, ASGI3Application]] = ()) -> None:
        """End the connection, with this refusal if it can be written.

        A request that has arrived whole may commit. So its own answer ends the connection, whatever else arrives. Until
        then, and for a moment after a refusal (see lingering.py), the server drops up to 4 MiB of further bytes.
        `queued` requests, the newest first, are answered before the end.
        """
        if self._ended or self.transport.is_closing():
            return
        running = self._running if self.is_answering() else None
        if running is not None and not running.more_body:
            (queued[0][0] if queued else running).keep_alive = False
            self._ending = True
            self.pipeline = deque(queued)
            self.flow.resume_reading()
            return
        self._silence()
        self.flow.resume_reading()
        if refusal and not (running and running.response_started):
            self._ended = self._lingering.end(self.transport, self.loop, refusal)
        else:
            self.transport.close()
        self._watch_reader()
