"""Shared blobs: every recorded part is a separate object, which any server can read.

    <prefix>/parts/<key>/<name>

An object is written once, under a random name that no other object has. It counts only if the database names it. No
server ever reads an object that could not be recorded, or came too late. The bytes of a request are on its server's
disk until they are kept, in a file without a name. While a request completes the blob, so is the whole blob.
"""

import asyncio
import hashlib
import re
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar
from weakref import WeakSet

from uponce.adapters.files import BLOCK_BYTES, Run, blocks_of, checked, read_at
from uponce.adapters.spool.buffered import BufferedWriter
from uponce.adapters.spool.hashes import sha256_of
from uponce.adapters.spool.locks import WHOLE, in_progress
from uponce.adapters.spool.parts import other_bytes
from uponce.adapters.spool.uploads import NewFile, SpooledUpload
from uponce.adapters.store.blobs import Blobs, in_batches
from uponce.adapters.store.bucket import Bucket
from uponce.adapters.system import closing_file
from uponce.app.ports import Ids, StoredBlob
from uponce.core.errors import StorageUnavailable
from uponce.core.formats import BINARY
from uponce.core.series import StoredPart
from uponce.core.spans import Span, split
from uponce.core.values import Digest

T = TypeVar("T")

_FOLDER = "parts"
_NAME = re.compile(r"parts/([0-9a-f]{32})/[0-9a-f]{32}")
_READ_BYTES = 2 * 1024 * 1024
_READS_AHEAD = 2


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Claim:
    """The right to write a span. It ends when it is garbage too: a cancelled request never ends its claim."""

    key: str
    span: Span


class Claims:
    """Which request of this process writes which bytes of a shared blob, and which bytes other requests ask for.

    Claims save work, and let a newer request replace one whose connection is dead. No byte's safety depends on them:
    they do not reach other processes or machines, and the database decides.
    """

    def __init__(self) -> None:
        self._held: WeakSet[Claim] = WeakSet()
        self.asked: list[tuple[str, Span]] = []

    def hold(self, key: str, span: Span = WHOLE) -> Claim:
        """Return a claim on the span. Raise ChunkInProgress if another request has some of it."""
        if any(other.key == key and span.meets(other.span) for other in self._held):
            raise in_progress()
        claim = Claim(key, span)
        self._held.add(claim)
        return claim

    def end(self, claim: Claim) -> None:
        self._held.discard(claim)

    def is_wanted(self, claim: Claim) -> bool:
        return any(key == claim.key and span.meets(claim.span) for key, span in self.asked)


class Move(Protocol):
    """Runs work that moves `size` bytes to or from the bucket, in a thread.

    The blob key of a `series` bounds how many threads work for the series at a time.
    """

    async def __call__(self, work: Callable[[], T], size: int, series: str | None = None) -> T: ...


class ObjectParts:
    """The Parts port. `run` moves bytes to or from the bucket in a thread, and `ask` runs other requests."""

    shared = True

    def __init__(self, blobs: Blobs, run: Move, ask: Run, bucket: Bucket, ids: Ids) -> None:
        self.blobs = blobs
        self.run = run
        self.ask = ask
        self._bucket = bucket
        self._ids = ids
        self.claims = Claims()

    async def begin(self) -> str:
        return self._ids.hex(32)

    async def hold(self, key: str, span: Span) -> "ObjectPart":
        return ObjectPart(self, checked(key), span, self.claims.hold(key, span))

    async def assembly(self, key: str) -> "ObjectAssembly":
        claim = self.claims.hold(checked(key))
        return ObjectAssembly(self, key, claim, await self.blobs.receive())

    @asynccontextmanager
    async def asking(self, key: str, span: Span | None) -> AsyncIterator[None]:
        asked = key, WHOLE if span is None else span
        self.claims.asked.append(asked)
        try:
            yield
        finally:
            self.claims.asked.remove(asked)

    async def drop(self, key: str) -> None:
        folder = f"{_FOLDER}/{checked(key)}"
        await self.ask(lambda: self._bucket.delete_below(folder))

    def listed(self) -> AsyncIterator[StoredBlob]:
        return in_batches(self.ask, self._listed())

    def _listed(self) -> Iterator[StoredBlob]:
        for name, size, age in self._bucket.listing(_FOLDER):
            match = _NAME.fullmatch(name)
            if match:
                yield StoredBlob(match[1], size, age)

    def nameless_file(self) -> NewFile:
        return NewFile(self.blobs.folder / self._ids.hex(32), is_nameless=True)

    def put(self, key: str, span: Span, descriptor: int, base: int) -> StoredPart:
        """Upload these bytes of a blob as an object, and return the part. Blocks.

        `base` is the offset in the blob of the file's first byte.
        """
        part = Span(span.start - base, span.end - base)
        sha256 = sha256_of(blocks_of(descriptor, part.start, part.end))
        name = self._ids.hex(32)
        self._bucket.upload(_path(key, name), descriptor, part, BINARY)
        return StoredPart(span, name, sha256)

    def read(self, key: str, part: StoredPart, start: int, end: int) -> bytes:
        """Return these bytes, which the part has. Blocks. Raise StorageUnavailable if its object has fewer."""
        block = self._bucket.read(_path(key, part.name), start - part.span.start, end - start)
        if len(block) != end - start:
            raise _unreadable(key, f"object {part.name} ends early")
        return block


class ObjectPart:
    """The HeldPart port. When its bytes are synced, they are compared and become an object."""

    def __init__(self, parts: ObjectParts, key: str, span: Span, claim: Claim) -> None:
        self._parts = parts
        self._key = key
        self._claim = claim
        self._start = span.start
        self._base = span.start  # where the file's bytes begin: earlier ones are kept
        self._file = parts.nameless_file()
        self._writer = BufferedWriter(parts.blobs.disk, self._file.append)
        self.write = self._writer.write

    @property
    def size(self) -> int:
        return self._writer.size

    def expect(self, present: Sequence[Span]) -> None:
        """Do nothing. When these bytes are synced, more may be recorded, and `sync` compares them."""

    async def sync(self, recorded: Sequence[StoredPart] = (), key: str | None = None) -> Sequence[StoredPart]:
        await self._writer.flush()
        span, blob = Span(self._base, self._start + self.size), self._key if key is None else checked(key)
        if not span.size:
            return ()
        return await self._parts.run(lambda: self._deposit(blob, span, recorded), span.size, blob)

    def keep(self) -> None:
        self._base = self._start + self.size
        self._file.rewind()

    async def wanted(self) -> bool:
        return self._parts.claims.is_wanted(self._claim)

    async def release(self) -> None:
        self._parts.claims.end(self._claim)
        await self._writer.end(partial(self._parts.blobs.disk.in_thread, self._file.close))

    def _deposit(self, key: str, span: Span, recorded: Sequence[StoredPart]) -> list[StoredPart]:
        """Compare the recorded parts, and upload the rest. Blocks."""
        # Another descriptor: a cancelled request closes the file while the bucket takes the bytes.
        with closing_file(self._file.duplicate()) as descriptor:
            base = self._base
            for part in recorded:
                self._compare(key, part, span, descriptor)
            missing = [gap for gap, present in split(span, [part.span for part in recorded]) if not present]
            return [self._parts.put(key, gap, descriptor, base) for gap in missing]

    def _compare(self, key: str, part: StoredPart, span: Span, descriptor: int) -> None:
        """Compare the bytes that the part has of the span."""
        last = min(part.span.end, span.end)
        for start in range(max(part.span.start, span.start), last, BLOCK_BYTES):
            end = min(start + BLOCK_BYTES, last)
            if self._parts.read(key, part, start, end) != read_at(descriptor, start - self._base, end - start):
                raise other_bytes(start)


class ObjectAssembly:
    """The Assembly port: a file like that of any upload, whose bytes come from the bucket.

    It has its own key. So two requests that complete one blob at a time publish two objects. If one of them fails to
    commit, it deletes nothing that the other one has published.
    """

    def __init__(self, parts: ObjectParts, blob: str, claim: Claim, spooled: SpooledUpload) -> None:
        self._parts = parts
        self._blob = blob
        self._claim = claim
        self._spooled = spooled
        self._is_offered = False
        self.key = spooled.key

    @property
    def path(self) -> str:
        return self._spooled.path

    async def seal(self, size: int, parts: AsyncIterable[StoredPart]) -> Digest:
        position, hash_ = 0, hashlib.sha256()
        async for part, block in self._blocks(parts):
            if position == part.span.start:
                hash_ = hashlib.sha256()
            await self._parts.blobs.disk.in_thread(partial(hash_.update, block))
            await self._spooled.write(block)
            position += len(block)
            if position == part.span.end and hash_.hexdigest() != part.sha256:
                raise _unreadable(self._blob, f"object {part.name} has other bytes than were recorded")
        if position != size:
            raise _unreadable(self._blob, f"the parts end at byte {position} of {size}")
        return await self._spooled.seal()

    async def _blocks(self, parts: AsyncIterable[StoredPart]) -> AsyncIterator[tuple[StoredPart, bytes]]:
        """Yield all bytes in order. Some are requested ahead."""
        coming: deque[tuple[StoredPart, asyncio.Task[bytes]]] = deque()
        try:
            end = 0
            async for part in parts:
                if part.span.start != end:
                    raise _unreadable(self._blob, f"no part has the byte {end}")
                end = part.span.end
                for start in range(part.span.start, end, _READ_BYTES):
                    coming.append((part, asyncio.create_task(self._read(part, start))))
                    if len(coming) == _READS_AHEAD:
                        known, reading = coming.popleft()
                        yield known, await reading
            while coming:
                known, reading = coming.popleft()
                yield known, await reading
        finally:
            for _, reading in coming:
                reading.cancel()
            await asyncio.gather(*(reading for _, reading in coming), return_exceptions=True)

    async def _read(self, part: StoredPart, start: int) -> bytes:
        end = min(start + _READ_BYTES, part.span.end)
        return await self._parts.run(lambda: self._parts.read(self._blob, part, start, end), end - start)

    def blocks(self) -> AsyncIterator[bytes]:
        return self._spooled.blocks()

    async def publish(self, media_type: str = BINARY) -> None:
        self._is_offered = True
        await self._spooled.publish(media_type)

    async def retract(self) -> None:
        await self._spooled.discard()

    async def discard(self) -> None:
        await self._spooled.discard()
        await self.clear()

    async def clear(self) -> None:
        await self._parts.drop(self._blob)

    async def release(self) -> None:
        self._parts.claims.end(self._claim)
        if not self._is_offered:
            await self._spooled.discard()


def _unreadable(key: str, detail: str) -> StorageUnavailable:
    return StorageUnavailable(
        "The bytes of this upload that arrived before cannot be read. Nothing was spent. Send this request again, or "
        "begin the upload again.",
        detail=f"blob {key}: {detail}",
    )


def _path(key: str, name: str) -> str:
    return f"{_FOLDER}/{key}/{name}"
