"""Large bodies: from the socket into blocks of a mebibyte, without the HTTP parser, which would copy each byte often.

Up to eight connections of a process have 32 blocks. A connection takes a block only when bytes have arrived. With more
connections, or if 32 blocks are in use, each connection reads smaller pieces. At most four pieces of a connection are
on their way to the disk, or to an upstream. A connection reads one piece ahead of its request, and then waits.
"""

import asyncio
from collections import deque
from typing import Protocol
from weakref import ref

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from uponce.web.request import Message

BLOCK_BYTES = 1024 * 1024
_MOST_BLOCKS = 32
_AHEAD = 4  # blocks or pieces of one connection that are on their way
_PIECES_BYTES = 2 * 1024 * 1024  # for all connections together
_LEAST_PIECE = 8 * 1024
_SMALL = memoryview(bytearray(64 * 1024))  # its bytes are copied before the next read


class Block(bytearray):
    """Bytes of a body that pass from one owner to the next without a copy. Never change a block."""

    def __radd__(self, before: bytes | bytearray) -> "bytes | Block":  # type: ignore[misc]
        """Return the block itself after no bytes. Multipart parsers add it to kept bytes, and `bytes` would copy."""
        return bytes(before) + bytes(self) if before else self


class _Pool:
    """Makes the blocks of all connections. A block that was handed on is never filled again.

    So no code must give a block back, or count its owners: a mistake there would change stored bytes.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._made: list[ref[Block]] = []
        self.users: set[LargeBody] = set()

    def take(self) -> Block | None:
        """Return a new block, or None to read pieces: `most` are in use, or too many connections share them."""
        self._made = [made for made in self._made if made() is not None]
        if self.is_crowded or len(self._made) >= self._most:
            return None
        block = Block(BLOCK_BYTES)
        self._made.append(ref(block))
        return block

    @property
    def is_crowded(self) -> bool:
        return len(self.users) * _AHEAD > self._most

    def piece(self) -> memoryview:
        """Return memory for one read whose bytes are copied at once."""
        return _SMALL[: max(_LEAST_PIECE, _PIECES_BYTES // (len(self.users) * _AHEAD or 1))]


POOL = _Pool(_MOST_BLOCKS)


class BodyConnection(Protocol):
    """The parts of a connection's protocol that a large body uses."""

    transport: asyncio.Transport
    flow: FlowControl
    body_bytes: int

    def go_on_parsing(self, body_bytes: int) -> None:
        """Parse again what arrives. The first `body_bytes` belong to the present body."""

    def connection_lost(self, exc: Exception | None) -> None: ...

    def eof_received(self) -> bool: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


class LargeBody(asyncio.BufferedProtocol):
    """The body of one request, of `length` bytes. It reads from the connection instead of the parser.

    The parser gets the end of each body, and everything after it. `receive` replaces the request's `receive` in ASGI.
    The first bytes come through the parser: they may suffice to refuse the request.
    """

    def __init__(self, connection: BodyConnection, cycle: RequestResponseCycle, length: int) -> None:
        self._connection = connection
        self._cycle = cycle
        self._length = length
        self._receive_parsed = cycle.receive
        self._is_begun = self._is_reading = False
        self._ready: deque[bytes | Block] = deque()
        self._block: Block | None = None
        self._filled = 0

    @property
    def _left(self) -> int:
        return self._length - self._connection.body_bytes

    @property
    def unread_bytes(self) -> int:
        """Return how many bytes have arrived here that the request has not taken."""
        return sum(map(len, self._ready)) + self._filled

    async def receive(self) -> Message:
        cycle = self._cycle
        # Behind the end of this body the connection counts the bytes of the next request.
        if self._is_begun and not self._is_reading and cycle.more_body and self._left >= BLOCK_BYTES:
            self._begin()
        self._is_begun = True
        while self._is_reading and not cycle.disconnected and not cycle.response_complete:
            if data := self._take():
                return {"type": "http.request", "body": data, "more_body": True}
            if not self._left:
                self.end()
                break
            cycle.message_event.clear()
            await cycle.message_event.wait()
        return await self._receive_parsed()  # type: ignore[return-value]

    def _begin(self) -> None:
        connection, cycle = self._connection, self._cycle
        if cycle.disconnected or cycle.response_complete or connection.transport.is_closing():
            return
        if cycle.body:
            self._ready.append(bytes(cycle.body))
            cycle.body = bytearray()
        self._is_reading = True
        POOL.users.add(self)
        connection.flow.pause_reading()
        connection.transport.set_protocol(self)
        connection.flow.resume_reading()

    def end(self) -> None:
        """Return the connection to its own protocol. Drop the bytes that the request did not take."""
        if not self._is_reading:
            return
        self.close()
        connection = self._connection
        connection.flow.pause_reading()
        connection.transport.set_protocol(connection)  # type: ignore[arg-type]
        connection.go_on_parsing(self._left)

    def close(self) -> None:
        """Free the memory. The connection reads nothing more."""
        self._is_reading = False
        self._ready.clear()
        self._block, self._filled = None, 0
        POOL.users.discard(self)

    def _take(self) -> bytes | Block:
        """Return the next bytes, or no bytes if none have arrived."""
        if self._ready:
            data = self._ready.popleft()
        else:
            data = b"" if self._block is None else bytes(memoryview(self._block)[: self._filled])
            self._filled = 0  # its bytes are copied, and no other object has the block
            if POOL.is_crowded:
                self._block = None
        if self._left:
            self._connection.flow.resume_reading()
        return data

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._block is None:
            self._block = POOL.take()
        if self._block is None:
            return POOL.piece()[: self._left]
        return memoryview(self._block)[self._filled : self._filled + self._left]

    def buffer_updated(self, nbytes: int) -> None:
        self._connection.body_bytes += nbytes
        if self._block is None:
            self._ready.append(bytes(_SMALL[:nbytes]))
        else:
            self._filled += nbytes
            if self._filled == BLOCK_BYTES:
                self._ready.append(self._block)
                self._block, self._filled = None, 0
        if self._ready or not self._left:
            self._connection.flow.pause_reading()
        self._cycle.message_event.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.close()
        self._connection.connection_lost(exc)

    def eof_received(self) -> bool:
        return self._connection.eof_received()

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()
