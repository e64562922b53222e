"""A client of a fleet, whose files have sizes around the limits of tiny_limits.py.

Each request goes to any of the servers, from one of a few addresses, at once or in pieces. A file is read in any way.
"""

import asyncio
import hashlib
import random
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from urllib.parse import urlencode, urlsplit

from urllib3 import encode_multipart_formdata
from urllib3.util import make_headers

from proof.faults.clients import LOST, Connection, Reply, connected, reply_of
from proof.faults.fleet import Fleet
from proof.faults.senders import Request
from proof.faults.tally import Tally
from proof.faults.tiny_limits import sizes

LARGEST = 40_000
ADDRESSES = 6
SLOW, FILE_FIRST, BARE = 0.3, 0.2, 0.1
TRIES = 100  # of a request that the server is too busy for
BUSY = frozenset({"server_busy"})

OK, PARTIAL, NOT_FOUND = 200, 206, 404

_SIZES = sizes()

Read = tuple[Reply, list[slice]]
Way = Callable[[str, Sequence[bytes]], Awaitable[Read]]


@dataclass
class Visitor:
    """Sends requests, and counts each answer that no client may get."""

    fleet: Fleet
    chance: random.Random
    tally: Tally
    begun: int = 0
    under_way: int = 0

    async def ask(self, request: Request) -> Reply:
        """Return the answer of a server that is not too busy. The caller counts an answer that was lost."""
        reply = Reply(LOST)
        for _ in range(TRIES):
            self.under_way += 1
            async with connected(self.chance.choice(self.fleet.servers)) as connection:
                (reply,) = await self.exchange(connection, request)
            self.under_way -= 1
            if reply.verdict not in BUSY:
                break
            self.tally.counts["requests while the server was busy"] += 1
            await asyncio.sleep(self.chance.uniform(0, 0.2))
        self.tally.expect(reply.status < 500, "failures of the server", f"{reply.verdict} to {request.head[:60]!r}")
        return reply

    async def exchange(self, connection: Connection, *requests: Request) -> list[Reply]:
        """Send all requests at once or in pieces, and return the answers."""

        async def answers() -> list[Reply]:
            return [await connection.reply(to_head=each.head.startswith(b"HEAD ")) for each in requests]

        whole = b"".join(self._from_anywhere(each.whole) for each in requests)
        _, replies = await asyncio.gather(self._send(connection, whole), answers())
        return replies

    async def _send(self, connection: Connection, whole: bytes) -> None:
        if self.chance.random() > SLOW:
            await connection.send(whole)
            return
        cuts = sorted(self.chance.sample(range(1, len(whole)), self.chance.randrange(1, 7)))
        for start, end in pairwise([0, *cuts, len(whole)]):
            await connection.send(whole[start:end])
            await asyncio.sleep(self.chance.uniform(0, 0.05))

    async def read(self, path: str, *versions: bytes | None) -> None:
        """Read a file in some way. The answer must be a whole version. None stands for an absent file.

        A deletion may cut an answer: its reader knows that bytes are missing.
        """
        files = [each for each in versions if each is not None]
        ways: Sequence[Way] = (self._whole, self._whole, self._sipped, self._head, self._ranges)
        way = self.chance.choice(ways)
        reply, wanted = await way(path, files)
        told = f"{reply.status} with {len(reply.data)} bytes of {path} by {way.__name__}, {wanted}"
        self.tally.counts["reads"] += 1
        if reply.status == LOST and len(versions) > 1:
            self.tally.counts["reads that a change has cut"] += 1
        elif reply.status == NOT_FOUND:
            self.tally.expect(None in versions, "files that were not there", told)
        elif way == self._head:
            tags = {tag(each): str(len(each)) for each in files}
            right = tags.get(reply.headers.get("etag", "")) == reply.headers.get("content-length")
            self.tally.expect(right, "reads of other bytes", told)
        elif reply.status == PARTIAL:
            right = _parts(reply) in [[each[part] for part in wanted] for each in files]
            self.tally.expect(right, "reads of other bytes", told)
        else:
            self.is_one_of(reply, files, told)

    async def pages(self, call: str, items: str, name: str) -> list[str]:
        """Return the names of all items of a listing of the Admin API, or of the signatures."""
        found: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            more = f"&{urlencode({'next_cursor': cursor})}" if cursor else ""
            reply = await self.ask(self.admin("GET", f"{call}{more}"))
            found += [item[name] for item in reply.body.get(items, ())]
            cursor = reply.body.get("next_cursor")
            self.tally.counts["pages of listings"] += 1
        return found

    def request(
        self,
        fields: Mapping[str, str],
        data: bytes,
        kind: str = "raw",
        *,
        headers: Mapping[str, str] | None = None,
        plain: bool = False,
    ) -> Request:
        """Return an upload as a form, as a form whose file comes first, or as the body of a PUT."""
        way, path = self.chance.random(), urlsplit(self.fleet.first.upload_url(kind)).path
        if not plain and way < BARE:
            body = Request(f"PUT {path}?{urlencode(fields)} HTTP/1.1\r\n".encode(), data)
            return self._with_head(body, {**(headers or {}), "Content-Type": "application/octet-stream"})
        body_, content_type = self._form(fields, data, file_first=not plain and way < BARE + FILE_FIRST)
        return self.posted(path, body_, content_type, headers)

    def bytes_(self, least: int = 1) -> bytes:
        """Return a file near a multiple of some limit, alone or with the form around it."""
        size = self.chance.choice(_SIZES) * self.chance.choice((1, 1, 1, 2, 3)) + self.chance.choice((-1, 0, 1))
        around = len(self._form(self.fleet.first.signed({"public_id": self.name()}), b"")[0])
        if self.chance.random() < 0.5 and size - around >= least:
            size -= around
        return self.chance.randbytes(max(least, min(size, LARGEST)))

    def sign(self, public_id: str = "", **params: str) -> dict[str, str]:
        return self.fleet.first.signed({"public_id": public_id or self.name(), **params})

    def path(self, fields: Mapping[str, str], kind: str = "raw") -> str:
        return f"/{self.fleet.first.cloud}/{kind}/upload/{fields['public_id']}"

    def is_one_of(self, reply: Reply, files: Collection[bytes], told: object) -> None:
        right = reply.status == OK and reply.data in files and reply.headers["etag"] == tag(reply.data)
        self.tally.expect(right, "reads of other bytes", told)

    # Ways to read: the answer, and which parts were asked for

    async def _whole(self, path: str, _: Sequence[bytes]) -> Read:
        return await self.ask(self.getting(path)), []

    async def _head(self, path: str, _: Sequence[bytes]) -> Read:
        return await self.ask(self.getting(path, method="HEAD")), []

    async def _ranges(self, path: str, files: Sequence[bytes]) -> Read:
        least = min(map(len, files), default=2)
        count = min(self.chance.choice((1, 1, 2, 3)), least // 2)
        points = sorted(self.chance.sample(range(least + 1), 2 * count)) or [0, 1]
        wanted = [slice(start, end) for start, end in zip(points[::2], points[1::2], strict=True)]
        told = ",".join(f"{part.start}-{part.stop - 1}" for part in wanted)
        return await self.ask(self.getting(path, {"Range": f"bytes={told}"})), wanted

    async def _sipped(self, path: str, _: Sequence[bytes]) -> Read:
        """Read slowly with small buffers, so the server must keep some of the file."""
        address = urlsplit(self.chance.choice(self.fleet.servers).base)
        loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
        with socket.socket() as line, suppress(ConnectionError):
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            line.setblocking(False)
            await loop.sock_connect(line, (address.hostname, address.port))
            await loop.sock_sendall(line, self.getting(path, {"Connection": "close"}).whole)
            while data := await loop.sock_recv(line, self.chance.choice((300, 1500, 5000))):
                reader.feed_data(data)
                await asyncio.sleep(self.chance.uniform(0, 0.004))
        reader.feed_eof()
        return await reply_of(reader), []

    # Bytes on the wire

    def name(self) -> str:
        self.begun += 1
        return f"file-{self.begun}"

    def _form(self, fields: Mapping[str, str], data: bytes, *, file_first: bool = False) -> tuple[bytes, str]:
        parts: list[tuple[str, Any]] = [*fields.items()]
        parts.insert(0 if file_first else len(parts), ("file", ("file.bin", data)))
        return encode_multipart_formdata(parts, boundary="----a-boundary-of-the-campaigns")

    def getting(self, path: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Request:
        return self._with_head(Request(f"{method} {path} HTTP/1.1\r\n".encode()), headers or {}, has_body=False)

    def admin(self, method: str, call: str, body: bytes = b"") -> Request:
        key, secret = self.fleet.first.server
        head = f"{method} /v1_1/{self.fleet.first.cloud}/{call} HTTP/1.1\r\n".encode()
        headers = {**make_headers(basic_auth=f"{key}:{secret}"), "Content-Type": "application/json"}
        return self._with_head(Request(head, body), headers, has_body=bool(body))

    def posted(self, path: str, body: bytes, content_type: str, headers: Mapping[str, str] | None = None) -> Request:
        told = {**(headers or {}), "Content-Type": content_type}
        return self._with_head(Request(f"POST {path} HTTP/1.1\r\n".encode(), body), told)

    def _with_head(self, request: Request, headers: Mapping[str, str], *, has_body: bool = True) -> Request:
        told = {"Host": urlsplit(self.fleet.first.base).netloc, **headers}
        if has_body:
            told["Content-Length"] = str(len(request.file))
        lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
        return request._replace(head=request.head + f"{lines}\r\n".encode())

    def _from_anywhere(self, whole: bytes) -> bytes:
        address = f"\r\nX-Forwarded-For: 10.0.0.{self.chance.randrange(ADDRESSES)}\r\n".encode()
        return whole.replace(b"\r\n", address, 1)


def tag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


def _parts(reply: Reply) -> list[bytes]:
    """Return the ranges of an answer."""
    _, is_several, boundary = reply.headers["content-type"].partition("multipart/byteranges; boundary=")
    if not is_several:
        return [reply.data]
    return [part.partition(b"\r\n\r\n")[2] for part in reply.data.split(b"\r\n--" + boundary.encode())[1:-1]]
