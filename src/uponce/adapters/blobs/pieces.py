"""Blobs that arrive in pieces: one sparse file in the staging folder, written in place.

Who writes a span, or completes the whole, holds a lock on just these bytes of the file.
"""

import asyncio
import os
from collections import OrderedDict
from collections.abc import AsyncIterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from uponce.adapters.blobs.files import BLOCK_BYTES, SAFE, blocks_of, guarded
from uponce.adapters.blobs.gathering import GatheringPiece, Yard
from uponce.adapters.blobs.hashes import Hashes
from uponce.adapters.blobs.locks import Hold, is_wanted
from uponce.adapters.system import start_writeback, sync_data, sync_folder
from uponce.core.errors import ChunkConflict, UponceError
from uponce.core.formats import BINARY
from uponce.core.series import StoredPart
from uponce.core.spans import Span, split
from uponce.core.values import Digest

_MOST_PREFIXES = 4096


class Prefixes:
    """By blob key: the hashes of its first bytes, which this process has hashed as they came, and which are recorded.
    Beyond `most` the least recently used go, and are read anew at the end."""

    def __init__(self, most: int = _MOST_PREFIXES) -> None:
        self._most = most
        self._known: OrderedDict[str, Hashes] = OrderedDict()

    def get(self, key: str) -> Hashes:
        """A copy to go on with."""
        found = self._known.get(key)
        return found.copy() if found else Hashes()

    def put(self, key: str, prefix: Hashes) -> None:
        if prefix.end >= self.get(key).end:
            self._known[key] = prefix.copy()
            self._known.move_to_end(key)
        while len(self._known) > self._most:
            self._known.popitem(last=False)

    def drop(self, key: str) -> None:
        self._known.pop(key, None)


def make_empty(store: Yard, key: str) -> None:
    """In a thread. A file with a durable name, before anything can be recorded of it."""
    os.close(os.open(store.staging / key, os.O_CREAT | os.O_EXCL | os.O_WRONLY | SAFE, 0o600))
    sync_folder(store.staging)


class FilePiece(GatheringPiece):
    """The Piece port."""

    def __init__(self, store: Yard, key: str, span: Span, hold: Hold, prefixes: Prefixes) -> None:
        super().__init__(store)
        self._key = key
        self._span = span
        self._hold = hold
        self._prefixes = prefixes
        self._present: Sequence[Span] = ()
        self._position = span.start
        prefix = prefixes.get(key)
        self._hashes = prefix if prefix.end == span.start else None

    def expect(self, present: Sequence[Span]) -> None:
        self._present = present

    async def sync(self, recorded: Sequence[StoredPart] = (), key: str | None = None) -> Sequence[StoredPart]:
        await self._flush_all()
        await self._store.in_thread(self._sync)
        return ()

    def keep(self) -> None:
        if self._hashes is not None:
            self._prefixes.put(self._key, self._hashes)

    async def wanted(self) -> bool:
        return await self._store.in_thread(self._is_wanted)

    def _close(self) -> None:
        self._hold.close()

    def _is_wanted(self) -> bool:
        with self._lock:
            return is_wanted(self._hold, self._span)

    def _sync(self) -> None:
        with self._lock:
            sync_data(self._hold.number())

    def _flush(self, blocks: Sequence[bytes | bytearray]) -> None:
        with self._lock:
            descriptor = self._hold.number()
            for block in blocks:
                self._put(descriptor, block)
            start_writeback(descriptor)

    def _put(self, descriptor: int, block: bytes | bytearray) -> None:
        start = self._position
        for span, present in split(Span(start, start + len(block)), self._present):
            data = memoryview(block)[span.start - start : span.end - start]
            if present:
                _compare(descriptor, data, span.start)
            else:
                _write(descriptor, data, span.start)
        self._position += len(block)


class FileAssembly:
    """The Assembly port."""

    def __init__(self, store: Yard, key: str, hold: Hold, prefixes: Prefixes) -> None:
        self._store = store
        self.key = key
        self._hold = hold
        self._prefixes = prefixes
        self._staged = store.staging / key
        self._size = 0

    @property
    def path(self) -> str:
        return str(self._staged)

    async def seal(self, size: int, parts: AsyncIterable[StoredPart]) -> Digest:
        await self._store.take_back(self.key)  # decoders read staged files
        await self._store.in_thread(lambda: self._cut(size))
        self._size = size
        prefix = self._prefixes.get(self.key)
        hashes = prefix.md5, prefix.sha256
        # Each in its own thread: together they take as long as the slower one.
        await asyncio.gather(*(self._hash(hash_, prefix.end, size) for hash_ in hashes))
        return Digest(size, *(hash_.hexdigest() for hash_ in hashes))

    async def publish(self, media_type: str = BINARY) -> None:
        number = self._hold.number
        await self._store.in_publisher(
            lambda: self._store.put(self.key, self._staged, number(), media_type), self._size
        )

    async def retract(self) -> None:
        """It is published under the same key when it is tried again."""

    async def discard(self) -> None:
        await self._store.delete(self.key)

    async def clear(self) -> None:
        self._prefixes.drop(self.key)
        await self._store.in_thread(lambda: self._staged.unlink(missing_ok=True))

    async def release(self) -> None:
        with suppress(UponceError):
            await asyncio.shield(asyncio.ensure_future(self._store.in_thread(self._hold.close)))

    async def _hash(self, hash_: Any, start: int, end: int) -> None:
        def work() -> None:
            for block in _blocks(self._hold, start, end):
                hash_.update(block)

        await self._store.lane().run(lambda: guarded(work))

    def _cut(self, size: int) -> None:
        """Chunks that were broken off may have left bytes behind the end."""
        os.ftruncate(self._hold.number(), size)


def _compare(descriptor: int, data: memoryview, position: int) -> None:
    for part in _parts(data):
        if os.pread(descriptor, len(part), position) != part:
            raise other_bytes(position)
        position += len(part)


def other_bytes(position: int) -> ChunkConflict:
    return ChunkConflict(
        f"Other bytes have arrived before for this part of the file, at or after byte {position}. Send the same file "
        "as before, or begin again with another X-Unique-Upload-Id."
    )


def _write(descriptor: int, data: memoryview, position: int) -> None:
    """`pwrite` may write less than it was given."""
    while data:
        written = os.pwrite(descriptor, data, position)
        data, position = data[written:], position + written


def _parts(data: memoryview) -> Iterator[memoryview]:
    return (data[start : start + BLOCK_BYTES] for start in range(0, len(data), BLOCK_BYTES))


def _blocks(hold: Hold, start: int, end: int) -> Iterator[bytes]:
    """On a descriptor of its own, which a cancelled caller cannot close under it; it shares the lock."""
    descriptor = os.dup(hold.number())
    try:
        yield from blocks_of(descriptor, start, end)
    finally:
        os.close(descriptor)
