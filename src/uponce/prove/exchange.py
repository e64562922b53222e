"""One request and its reply on a separate connection. The caller decides when each byte is sent."""

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httptools

from uponce.core.errors import printable

NO_REPLY = 0
_MOST_BYTES = 1024 * 1024
# These are about the time or the connection, not the signature: timeouts and rate limits (420 is Cloudinary's).
_NOT_DEFINITE = frozenset({408, 420, 425, 429})


@dataclass(frozen=True, slots=True)
class Reply:
    """`status` is NO_REPLY if none came; then `problem` is the reason. `body` is empty if it is no JSON object."""

    status: int
    body: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""

    @property
    def accepted(self) -> bool:
        return self.status == 200

    @property
    def replaced(self) -> bool:
        """Return whether the reply says that an asset of this name was there before."""
        return self.accepted and self.body.get("overwritten") is True

    @property
    def refused(self) -> bool:
        """Return whether the reply definitely refuses this request: a 4xx with the JSON error that SDKs read."""
        return 400 <= self.status < 500 and self.status not in _NOT_DEFINITE and bool(self.message)

    @property
    def message(self) -> str:
        return self._of_error("message")

    def __str__(self) -> str:
        if self.status == NO_REPLY:
            return "no reply"
        return f"{self.status} {self._of_error('code')}".strip()

    def _of_error(self, name: str) -> str:
        error = self.body.get("error")
        return printable(str(error.get(name, ""))) if isinstance(error, dict) else ""


class Exchange(asyncio.Protocol):
    """Reads from the start, so that it misses no byte of a server that answers early and hangs up.

    `reply` gets the reply, or NO_REPLY if the connection ends first.
    """

    def __init__(self) -> None:
        self.reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._body = bytearray()
        self._headers: set[bytes] = set()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._finish(Reply(NO_REPLY, problem=f"what it answered is not HTTP: {error}"))
        if len(self._body) > _MOST_BYTES:
            self._finish(Reply(NO_REPLY, problem=f"its answer is longer than {_MOST_BYTES} bytes"))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.add(name.lower())

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:  # a lower status announces a later reply
            self._finish(Reply(status, _json_object(bytes(self._body))))
        self._headers.clear()

    def connection_lost(self, error: Exception | None) -> None:
        if self._headers and not self._headers & {b"content-length", b"transfer-encoding"}:
            self.on_message_complete()  # the end of the connection is the end of such a body
        self._finish(Reply(NO_REPLY, problem=str(error or "the connection was closed without an answer")))

    def send(self, data: bytes) -> None:
        self._transport.write(data)

    def hang_up(self, *, reset: bool = False) -> None:
        """Close the connection at once, with a FIN or a RST. Does nothing if the other end has closed it."""
        if self._transport.is_closing():
            return
        if reset:
            no_linger = struct.pack("ii", 1, 0)
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
        self._transport.abort()

    def _finish(self, reply: Reply) -> None:
        if not self.reply.done():
            self.reply.set_result(reply)


async def connect(host: str, port: int, *, tls: bool, seconds: int) -> Exchange:
    """Return a new connection. Raise OSError, of which TimeoutError is one, if it cannot be made."""
    context = ssl.create_default_context() if tls else None
    connecting = asyncio.ensure_future(asyncio.get_running_loop().create_connection(Exchange, host, port, ssl=context))
    try:
        await wait_for([connecting], seconds)
        if not connecting.done():
            raise TimeoutError
        _, exchange = connecting.result()
        return exchange
    finally:
        connecting.cancel()


async def wait_for(futures: Sequence[asyncio.Future[Any]], seconds: int) -> None:
    """Return when all are done, or after so many waits of a second.

    A machine that stands still (a laptop that sleeps, a virtual machine that is moved) ends one wait, not all of them.
    What arrived at that time is then read.
    """
    for _ in range(seconds):
        _, waiting = await asyncio.wait(futures, timeout=1)
        if not waiting:
            return


def _json_object(data: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
