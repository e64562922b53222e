"""A raw HTTP client over asyncio streams: it can stop anywhere inside a request, and misses nothing of the answer."""

import asyncio
import hashlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

from proof.faults.audit import Receipt
from tests.server import Server

_SECONDS = 60
_BOUNDARY = "----a-boundary-of-the-campaigns"

LOST = 0
"""The status of a reply that never came."""


_NO_CONTENT = 204


class Reachable(Protocol):
    """A server, or what stands before it: `base` is its URL."""

    @property
    def base(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: Mapping[str, Any] = field(default_factory=dict)
    data: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """`ok`, an error code, or `lost`; the number of a status that comes without words."""
        if self.status == LOST:
            return "lost"
        if self.status in (200, 201, _NO_CONTENT):
            return "ok"
        return str(self.body["error"]["code"]) if self.body else str(self.status)

    def receipt(self, data: bytes) -> Receipt:
        """Return what this 200 promises about the bytes that were sent."""
        return Receipt(self.body["public_id"], self.body["asset_id"], hashlib.sha256(data).hexdigest())


def form_head(
    server: Server,
    fields: Mapping[str, str],
    length: int,
    kind: str,
    filename: str = "file.bin",
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """Return a POST up to the first of `length` bytes of the file. `FORM_TAIL` ends it."""
    parts = [
        *(
            f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        ),
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n\r\n',
    ]
    opening = "".join(parts)
    size = len(opening) + length + len(FORM_TAIL)
    address, path = urlsplit(server.base).netloc, urlsplit(server.upload_url(kind)).path
    head = f"POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {size}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    return f"{head}Content-Type: multipart/form-data; boundary={_BOUNDARY}\r\n\r\n{opening}".encode()


# No CRLF at the end: the form is complete with the very last byte, not before it.
FORM_TAIL = f"\r\n--{_BOUNDARY}--".encode()


def form(
    server: Server,
    fields: Mapping[str, str],
    data: bytes,
    kind: str = "raw",
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """Return all bytes of an upload."""
    return form_head(server, fields, len(data), kind, headers=headers) + data + FORM_TAIL


class Connection:
    """One request at a time; usable again after a reply."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @property
    def port(self) -> int:
        """Our end's."""
        return int(self._writer.get_extra_info("sockname")[1])

    async def send(self, data: bytes) -> None:
        """Also after the other end has hung up: what it said before can still be read."""
        with suppress(ConnectionError):
            self._writer.write(data)
            await self._writer.drain()

    def send_now(self, data: bytes) -> None:
        self._writer.write(data)

    def end(self) -> None:
        """Say that nothing more will be sent; replies can still be read."""
        with suppress(OSError):
            self._writer.write_eof()

    def hang_up(self, *, reset: bool = False) -> None:
        """At once, whatever is still unsent or unread; with a RST instead of a FIN, if need be."""
        if reset:
            no_linger = struct.pack("ii", 1, 0)
            with suppress(OSError):  # the connection is closed already
                self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
        self._writer.transport.abort()

    async def reply(self, *, to_head: bool = False, seconds: float = _SECONDS) -> Reply:
        async with asyncio.timeout(seconds):
            return await reply_of(self._reader, to_head=to_head)

    async def ask(self, request: bytes, *, seconds: float = _SECONDS) -> Reply:
        await self.send(request)
        return await self.reply(to_head=request.startswith(b"HEAD "), seconds=seconds)


async def reply_of(reader: asyncio.StreamReader, *, to_head: bool = False) -> Reply:
    """Return the next reply of a stream. It is lost if it ends early."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status_line, *lines = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(status_line.split()[1])
        length = 0 if to_head or status == _NO_CONTENT else int(headers["content-length"])
        data = await reader.readexactly(length)
    except (ConnectionError, asyncio.IncompleteReadError):
        return Reply(LOST)
    is_json = bool(data) and headers.get("content-type", "").startswith("application/json")
    return Reply(status, json.loads(data) if is_json else {}, data, headers)


@asynccontextmanager
async def connected(server: Reachable) -> AsyncIterator[Connection]:
    address = urlsplit(server.base)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def ask(server: Reachable, request: bytes) -> Reply:
    """Send the request on a new connection."""
    async with connected(server) as connection:
        return await connection.ask(request)


async def fetch(server: Server, path: str) -> Reply:
    return await ask(server, f"GET {path} HTTP/1.1\r\nHost: {urlsplit(server.base).netloc}\r\n\r\n".encode())


async def hold_back(connections: Sequence[Connection], requests: Sequence[bytes]) -> None:
    """Send every request except its last byte."""
    await asyncio.gather(*(c.send(request[:-1]) for c, request in zip(connections, requests, strict=True)))


async def release(connections: Sequence[Connection], requests: Sequence[bytes]) -> list[Reply]:
    """Send all the last bytes at once, and return the replies."""
    for connection, request in zip(connections, requests, strict=True):
        connection.send_now(request[-1:])
    return await asyncio.gather(*(connection.reply() for connection in connections))
