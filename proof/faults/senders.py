"""Clients that upload one file until it is stored, whatever breaks: in one keyed request, in chunks, or by tus.

How their requests travel is a Way: straight, over a bad network, or broken off on purpose.
"""

import asyncio
import hashlib
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import urlsplit

from proof.faults.clients import FORM_TAIL, LOST, Reachable, Reply, ask, fetch, form_head
from proof.faults.sitting import patient
from proof.faults.tally import Tally
from tests.chunks import headers as chunk_headers
from tests.server import Server
from tests.tus import BYTES, VERSION, metadata

_PAUSE = 0.4  # seconds before the same is tried again, at most
_LANES = 3
_BUSY = frozenset({"chunk_in_progress", "chunk_superseded"})
"""Refusals that ask to come again: another request, whose client may be dead, has these bytes."""


class Request(NamedTuple):
    """What goes over the wire; `file` are the uploaded bytes in it."""

    head: bytes
    file: bytes = b""
    tail: bytes = b""

    @property
    def whole(self) -> bytes:
        return self.head + self.file + self.tail


Way = Callable[[Request], Awaitable[Reply]]
"""A request → its reply, which may be lost."""


def straight(where: Reachable, patience: float = 60) -> Way:
    """On a connection for each; after so many seconds without an answer the client gives the connection up."""

    async def way(request: Request) -> Reply:
        with suppress(OSError):  # TimeoutError and ConnectionError are
            async with asyncio.timeout(patience):
                return await ask(where, request.whole)
        return Reply(LOST)

    return way


def spread(ways: Sequence[Way], chance: random.Random) -> Way:
    """Each request goes by any of them."""

    async def way(request: Request) -> Reply:
        return await chance.choice(ways)(request)

    return way


@dataclass(eq=False)
class Sender(ABC):
    """One file with its own public_id, and the answers that its client got.

    `asset` is the answer with the asset, `refused` an answer after which clients give up.
    """

    server: Server
    way: Way
    public_id: str
    data: bytes
    chance: random.Random
    acknowledged: int = 0
    lost: int = 0
    asset: Reply | None = None
    is_told: bool = False
    refused: str = ""
    over: bool = False
    signed: list[dict[str, str]] = field(default_factory=list)

    async def run(self) -> None:
        """Until it is stored, refused, or the client has left."""
        await self._upload()
        self.over = True

    @property
    def is_under_way(self) -> bool:
        return self.acknowledged > 0 and not self.over

    @property
    def is_stored(self) -> bool:
        """Return whether the file is stored, as far as the client knows.

        The client has the asset, or after a lost reply it got the answer that the signature is used.
        """
        return self.asset is not None or self.is_told

    @property
    def path(self) -> str:
        return f"/{self.server.cloud}/raw/upload/{self.public_id}"

    @abstractmethod
    async def _upload(self) -> None: ...

    @abstractmethod
    def replays(self) -> Iterator[tuple[Request, str]]:
        """Requests that must be refused once it is stored, each with the refusal."""

    def sign(self, **params: str) -> dict[str, str]:
        fields = self.server.signed({"public_id": self.public_id, **params})
        self.signed.append(fields)
        return fields

    async def _ask(self, request: Request) -> Reply:
        reply = await patient(Tally(), lambda: self.way(request))
        if reply.verdict == "lost":
            self.lost += 1
        return reply

    async def _pause(self) -> None:
        await asyncio.sleep(self.chance.uniform(0, _PAUSE))

    def _settle(self, reply: Reply) -> bool:
        """Return whether nothing is left to do."""
        if reply.verdict == "ok":
            self.asset = reply
        elif reply.verdict == "signature_used" and self.lost:
            self.is_told = True
        elif reply.verdict not in (*_BUSY, "lost"):
            self.refused = reply.verdict
        return self.is_stored or bool(self.refused)


def form(server: Server, fields: Mapping[str, str], data: bytes, headers: Mapping[str, str] | None = None) -> Request:
    return Request(form_head(server, fields, len(data), "raw", headers=headers), data, FORM_TAIL)


def other_file(sender: Sender) -> Iterator[tuple[Request, str]]:
    """Yield a plain upload under each signature."""
    for fields in sender.signed:
        yield form(sender.server, fields, b"another file"), "signature_used"


class Keyed(Sender):
    """In one request with an Idempotency-Key, again and again."""

    async def _upload(self) -> None:
        request = form(self.server, self.sign(), self.data, {"Idempotency-Key": f'"{self.public_id}"'})
        while True:
            reply = await self._ask(request)
            # A request that was cut off may not have ended there yet.
            if reply.verdict != "signature_in_use" and self._settle(reply):
                return
            await self._pause()

    def replays(self) -> Iterator[tuple[Request, str]]:
        return other_file(self)


class Resumable(Sender):
    """In several requests. `leaves` makes a client that goes away before the last one."""

    leaves: bool = False

    @abstractmethod
    def missing(self) -> Request:
        """After its client has left: the request that would complete it."""


class Chunked(Resumable):
    """Cloudinary's protocol: in order or not, several at a time or not, under one signature or a new one for each."""

    async def _upload(self) -> None:
        count = self.chance.randrange(2, 9)
        size = -(-len(self.data) // count)
        self.spans = [(first, min(first + size, len(self.data))) for first in range(0, len(self.data), size)]
        self.knows_total = self.chance.random() < 0.5
        anew = self.chance.random() < 0.5
        one = self.sign()
        self.fields = {span: self.sign(nonce=str(span[0])) if anew and span[0] else one for span in self.spans}
        order = self.spans[: len(self.spans) - self.leaves]
        if self.chance.random() < 0.3:
            self.chance.shuffle(order)
        pending = iter(order)

        async def lane() -> None:
            for span in pending:
                await self._send(span)

        await asyncio.gather(*(lane() for _ in range(self.chance.choice((1, 1, _LANES)))))

    async def _send(self, span: tuple[int, int]) -> None:
        while not self.refused:
            reply = await self._ask(self.chunk(span))
            if reply.verdict == "ok" and not reply.body["done"]:
                self.acknowledged += 1
                return
            # Another lane may have sent what was missing.
            if self.asset is not None and reply.verdict == "signature_used":
                return
            if self._settle(reply):
                return
            await self._pause()

    def chunk(self, span: tuple[int, int]) -> Request:
        start, end = span
        total = len(self.data) if self.knows_total or end == len(self.data) else -1
        told = chunk_headers(start, end - 1, total, f"id-of-{self.public_id}")
        return form(self.server, self.fields[span], self.data[start:end], told)

    def missing(self) -> Request:
        return self.chunk(self.spans[-1])

    def replays(self) -> Iterator[tuple[Request, str]]:
        yield from other_file(self)
        yield from ((self.chunk(span), "signature_used") for span in self.spans)


class Tus(Resumable):
    """Creation, then PATCHes of any size; a HEAD before the next one when one broke off."""

    address = ""
    kept = 0  # bytes that were acknowledged
    begun_anew = 0

    async def _upload(self) -> None:
        self.fields = self.sign()
        offset: int | None = None
        while not self.refused and not self.is_stored:
            if not self.address:
                offset = await self._create()
            elif offset is None:
                offset = await self._find_offset()
            elif offset == len(self.data):
                await self._hear()
                offset = None
            elif self.leaves and self.acknowledged:
                return
            else:
                offset = await self._send(offset)
            if offset is None:
                await self._pause()

    async def _create(self) -> int | None:
        reply = await self._ask(self.creation())
        if reply.verdict == "ok":
            self.address = urlsplit(reply.headers["location"]).path
            return 0
        if reply.verdict != "signature_in_use":  # by the one before, whose address is lost
            self._settle(reply)
        return None

    async def _find_offset(self) -> int | None:
        reply = await self._ask(self.request("HEAD", VERSION))
        if reply.verdict == "ok":
            offset = int(reply.headers["upload-offset"])
            if offset < self.kept:
                self.refused = f"{offset} bytes of {self.kept} acknowledged ones"
            return offset
        if reply.status == 404 and not self.acknowledged:
            # A creation that was taken for lost arrived after all, and took this one's place.
            self.address, self.begun_anew = "", self.begun_anew + 1
        elif reply.status != 423:
            self._settle(reply)
        return None

    async def _send(self, offset: int) -> int | None:
        end = self.chance.choice((len(self.data) - self.leaves, self.chance.randint(offset + 1, len(self.data))))
        end = min(end, len(self.data) - self.leaves)
        reply = await self._ask(self.patch(offset, end))
        if reply.status == 204:
            self.acknowledged += 1
            self.kept = int(reply.headers["upload-offset"])
            return self.kept
        if reply.status == 200:
            self.asset = reply
        elif reply.status not in (404, 409, 423):  # a HEAD shows it
            self._settle(reply)
        return None

    async def _hear(self) -> None:
        """Get the state of the upload, now that all bytes have arrived."""
        reply = await self._ask(self.request("GET"))
        if reply.verdict != "ok" or reply.body["done"]:
            self._settle(reply)

    def creation(self) -> Request:
        told = metadata({**self.fields, "resource_type": "raw", "filename": "file.bin"})
        length = {"upload-length": str(len(self.data)), "content-length": "0"}
        return self.request("POST", {**VERSION, **length, "upload-metadata": told}, f"/tus/{self.server.cloud}/")

    def patch(self, offset: int, end: int) -> Request:
        told = {"upload-offset": str(offset), "content-length": str(end - offset), "prefer": "return=representation"}
        return self.request("PATCH", {**VERSION, **BYTES, **told})._replace(file=self.data[offset:end])

    def request(self, method: str, told: Mapping[str, str] | None = None, path: str = "") -> Request:
        lines = "".join(f"{name}: {value}\r\n" for name, value in (told or {}).items())
        host = urlsplit(self.server.base).netloc
        return Request(f"{method} {path or self.address} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n".encode())

    def missing(self) -> Request:
        return self.patch(self.kept, len(self.data))

    def replays(self) -> Iterator[tuple[Request, str]]:
        yield from other_file(self)
        yield self.patch(0, len(self.data)), "upload_complete"
        yield self.creation(), "signature_used"


async def served(sender: Sender) -> bool:
    """Return whether its asset has the right bytes."""
    reply = await fetch(sender.server, sender.path)
    return reply.status == 200 and hashlib.sha256(reply.data).digest() == hashlib.sha256(sender.data).digest()
