"""One body while aiohttp sends it: what has left, and why it ended early."""

import asyncio
from collections.abc import Awaitable
from typing import Never, TypeVar

from aiohttp import Payload
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import StreamWriter

from uponce.adapters.upstream import Times
from uponce.adapters.upstream.bodies import Body

T = TypeVar("T")

_PIECE_BYTES = 256 * 1024  # what a transport cannot send at once, it copies again and again


class Sending(Payload):
    """What aiohttp writes as the body of a request.

    `committed`: the upstream may be able to complete the request. `error` is what `file` or `tail` raised: aiohttp
    itself hides it in an error of its connection. `limit` is the deadline of the answer.
    """

    _autoclose = True

    def __init__(self, body: Body, times: Times) -> None:
        super().__init__(body, content_type=body.content_type)
        self._size = body.size  # from which aiohttp makes Content-Length
        self._left = body.size
        self._body = body
        self._times = times
        self._tail: asyncio.Future[bytes] | None = None
        self._begun = self._stopped = False
        self._ended = asyncio.Event()
        self.committed = False
        self.error: BaseException | None = None
        self.limit: asyncio.Timeout | None = None

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> Never:
        raise TypeError("a body is sent once, piece by piece")

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the whole body. End the connection at once if that fails: the upstream never sees an end."""
        assert isinstance(writer, StreamWriter)
        self._begun = True
        complete = False
        try:
            await self._write(writer)
            complete = True
        finally:
            # Closing would first wait until the upstream has read what is buffered, perhaps for ever.
            if not complete and writer.transport is not None:
                writer.transport.abort()
            self._ended.set()

    async def _write(self, writer: StreamWriter) -> None:
        body = self._body
        self.committed = not body.withheld
        await self._put(writer, body.head)
        if body.file is not None:
            pieces = aiter(body.file)
            while (piece := await self._own(anext(pieces, None))) is not None:
                await self._put(writer, piece)
        if body.tail is not None:
            await self._unless_stopped()
            self._tail = asyncio.ensure_future(body.tail())
            await self._put(writer, await self._own(asyncio.shield(self._tail)), last=True)
        self._start_limit()

    async def _put(self, writer: StreamWriter, data: bytes | bytearray, *, last: bool = False) -> None:
        await self._unless_stopped()
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0 or (last and self._left):
                raise ValueError(f"a body of {self._size} bytes would end {self._left} bytes before its end")
        for start in range(0, len(data), _PIECE_BYTES):
            # It raises before it hands anything on, or hands on everything.
            await writer.write(memoryview(data)[start : start + _PIECE_BYTES], drain=False)
            self.committed = self.committed or last
            async with asyncio.timeout(self._times.stall):
                await writer.drain()

    async def _own(self, awaited: Awaitable[T]) -> T:
        try:
            return await awaited
        except Exception as error:
            self.error = error
            raise

    async def _unless_stopped(self) -> None:
        if self._stopped:
            await asyncio.Event().wait()  # until aiohttp has read the answer, and cancels this

    def _start_limit(self) -> None:
        if self.limit is not None:
            self.limit.reschedule(asyncio.get_running_loop().time() + self._times.reply)

    def stop(self) -> None:
        """Send no more, since the answer has begun. A `tail` that was not called yet is not called."""
        self._stopped = True
        self._start_limit()

    async def settle(self) -> None:
        """Return when `file` and `tail` are in use no more.

        A `tail` that has begun is not interrupted: its caller must know what it did.
        """
        if self._begun:
            await self._ended.wait()
        if self._tail is not None:
            await asyncio.wait([self._tail])
            self.error = self.error or (None if self._tail.cancelled() else self._tail.exception())
