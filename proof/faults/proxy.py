"""A bad network between a client and a server: connections that break, lose the reply, stall or crawl, as planned.

It does not know HTTP. The number of bytes that a client has sent on a connection decides when a fault strikes.
"""

import asyncio
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

_BLOCK = 16 * 1024


class Kind(StrEnum):
    NONE = "none"
    CUT = "cut"  # both ends see the connection closed
    RESET = "reset"  # both ends see it reset
    SWALLOW = "swallow"  # the server goes on to the end of the request; its reply is lost and the connection with it
    SILENCE = "silence"  # nothing passes any more, and no side gets an error
    MESSAGE = "message"  # `call` is called before the byte passes, which then goes on
    ANSWER = "answer"  # `call` is called when the answer begins, which is lost


_PASSING = (Kind.SWALLOW, Kind.MESSAGE)
_UNTIMED = (Kind.NONE, Kind.ANSWER)


@dataclass(frozen=True, slots=True)
class Fault:
    """What becomes of one connection when the client has sent `after` bytes.

    `delay` are seconds before anything passes, `rate` bytes a second from the client; None is as fast as it goes.
    """

    kind: Kind = Kind.NONE
    after: int = 0
    delay: float = 0
    rate: float | None = None
    call: Callable[[], object] = bool


Plan = Callable[[int], Fault]
"""The number of a connection, from 1 → its fault."""


class FaultProxy:
    """Listens on `port` from `__enter__` to `__exit__`. `struck` counts faults that came to pass, by kind.

    `sent` is how many bytes came on the connection with the most since `hang_up`. With `most`, no more bytes than that
    pass from all clients before `go_on`.
    """

    def __init__(self, server_port: int, plan: Plan, most: int | None = None) -> None:
        self.plan = plan
        self._left = most
        self._may_go_on = asyncio.Event()
        self.port = 0
        self.connections = 0
        self.sent = 0
        self.struck: Counter[Kind] = Counter()
        self._server_port = server_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="fault-proxy")
        self._ready = threading.Event()
        self._over = asyncio.Event()
        # Nothing else refers to a connection that has fallen silent.
        self._open: set[asyncio.Task[None]] = set()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "FaultProxy":
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    def hang_up(self) -> None:
        """End all connections. The next ones get the plan as it is then."""
        self.sent = 0
        self._loop.call_soon_threadsafe(lambda: [each.cancel() for each in self._open])

    def go_on(self) -> None:
        """Let all bytes pass from now on."""
        self._loop.call_soon_threadsafe(self._may_go_on.set)

    async def gate(self, size: int) -> None:
        """Return when so many more bytes may pass."""
        if self._left is not None:
            self._left -= size
            if self._left < 0:
                await self._may_go_on.wait()

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        listening = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = listening.sockets[0].getsockname()[1]
        self._ready.set()
        await self._over.wait()
        for _ in range(10):  # a connection may have been accepted just now
            await asyncio.sleep(0)
        listening.close()  # the runner cancels the connections that are left

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Not a coroutine: one that is cancelled before its first step would leave its connection open."""
        self.connections += 1
        connection = asyncio.ensure_future(self._connection(self.plan(self.connections), reader, writer))
        self._open.add(connection)
        connection.add_done_callback(self._open.discard)
        connection.add_done_callback(lambda _: writer.transport.abort())

    async def _connection(self, fault: Fault, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.CancelledError):  # the proxy's end cancels it
            await Link(self, fault, reader, writer).run(self._server_port)


class Link:
    """One connection and its continuation to the server."""

    def __init__(
        self, proxy: FaultProxy, fault: Fault, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._proxy = proxy
        self._fault = fault
        self._reader = reader
        self._writer = writer
        self._sent = 0
        self._strikes = False

    async def run(self, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        up = asyncio.create_task(self._upwards(writer))
        down = asyncio.create_task(self._downwards(reader, up))
        try:
            done, _ = await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            if up in done and not self._strikes:
                await asyncio.wait({down})  # the client has said all; the answer may still come
        finally:
            # Before anything is awaited here, which the proxy's end may cancel once more.
            if self._strikes and self._fault.kind is Kind.RESET:
                _reset_on_close(self._writer)
                _reset_on_close(writer)
            writer.transport.abort()
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)

    async def _upwards(self, writer: asyncio.StreamWriter) -> None:
        fault = self._fault
        await asyncio.sleep(fault.delay)
        while block := await self._reader.read(_BLOCK):
            if fault.rate is not None:
                await asyncio.sleep(len(block) / fault.rate)
            await self._proxy.gate(len(block))
            left = fault.after - self._sent
            if fault.kind not in _UNTIMED and len(block) >= left and not self._strikes:
                self._strike()
                if fault.kind not in _PASSING:
                    writer.write(block[: max(left, 0)])
                    await writer.drain()
                    if fault.kind is Kind.SILENCE:
                        await asyncio.Event().wait()
                    return
            self._sent += len(block)
            self._proxy.sent = max(self._proxy.sent, self._sent)
            writer.write(block)
            await writer.drain()
        writer.write_eof()

    async def _downwards(self, reader: asyncio.StreamReader, up: "asyncio.Task[None]") -> None:
        while block := await reader.read(_BLOCK):
            if self._strikes and self._fault.kind is Kind.SILENCE:
                await asyncio.Event().wait()
            if self._fault.kind is Kind.ANSWER:
                self._strike()
            if self._strikes and self._fault.kind is not Kind.MESSAGE:
                return
            self._writer.write(block)
            await self._writer.drain()

    def _strike(self) -> None:
        self._strikes = True
        self._fault.call()
        self._proxy.struck[self._fault.kind] += 1


def _reset_on_close(writer: asyncio.StreamWriter) -> None:
    """Send a RST instead of a FIN."""
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
