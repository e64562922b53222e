"""Blobs that arrive in parts: one sparse file in the spool, written in place.

A request that writes a span, or completes the whole blob, holds a lock on these bytes of the file.
"""

import asyncio
import os
import threading
from collections import OrderedDict
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from uponce.adapters.files import BLOCK_BYTES, SAFE, blocks_of, checked, make_file, read_at
from uponce.adapters.spool.buffered import Blocks, BufferedWriter
from uponce.adapters.spool.disk import Disk
from uponce.adapters.spool.hashes import Hashes
from uponce.adapters.spool.locks import WHOLE, Hold, ask_for, hold, is_wanted
from uponce.adapters.spool.uploads import Destination, blocks_of_file
from uponce.adapters.system import closing_file, end_of_data, erase, start_writeback, sync_data, sync_folder
from uponce.app.ports import Ids, StoredBlob
from uponce.app.unbroken import unbroken
from uponce.core.errors import ChunkConflict, UponceError
from uponce.core.formats import BINARY
from uponce.core.series import StoredPart
from uponce.core.spans import Span, split
from uponce.core.values import Digest

_MOST = 4096
_HASHED_AT_ONCE = 32 * 1024 * 1024


class Prefixes:
    """The hashes of the first bytes of unfinished blobs, by blob key.

    This process has received and recorded these bytes.

    Above the limit, the least recently used hashes are dropped. Their bytes are then read again at the end.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[str, Hashes] = OrderedDict()

    def get(self, key: str) -> Hashes:
        """Return a copy of the hashes, to continue with."""
        found = self._known.get(key)
        return found.copy() if found else Hashes()

    def put(self, key: str, prefix: Hashes) -> None:
        if prefix.end >= self.get(key).end:
            self._known[key] = prefix.copy()
            self._known.move_to_end(key)
        while len(self._known) > _MOST:
            self._known.popitem(last=False)

    def drop(self, key: str) -> None:
        self._known.pop(key, None)


def make_empty(folder: Path, key: str) -> None:
    """Make an empty file with a durable name, before any of its bytes are recorded. Blocks."""
    os.close(make_file(folder / key))
    sync_folder(folder)


class FileStore(Destination, Protocol):
    """A store whose published blobs are local files."""

    async def delete(self, key: str) -> None:
        """Delete the blob, published or spooled."""

    async def take_back(self, key: str, path: Path) -> None:
        """Give a published blob, which no known commit names, this path too."""

    def open_unfinished(self, key: str) -> int | None:
        """Return a descriptor of a published but uncommitted blob. Blocks."""


class FileParts:
    """The Parts port: the parts of a blob are in one file in the spool `folder`."""

    shared = False

    def __init__(self, folder: Path, disk: Disk, store: FileStore, ids: Ids, prefixes: Prefixes) -> None:
        self.folder = folder
        self.disk = disk
        self.store = store
        self._ids = ids
        self.prefixes = prefixes

    async def begin(self) -> str:
        key = self._ids.hex(32)
        await self.disk.in_thread(lambda: make_empty(self.folder, key))
        return key

    async def hold(self, key: str, span: Span) -> "FilePart":
        held = await self.disk.in_thread(lambda: hold(self._open, key, span))
        return FilePart(self, key, span, held)

    async def assembly(self, key: str) -> "FileAssembly":
        held = await self.disk.in_thread(lambda: hold(self._open, key, WHOLE))
        return FileAssembly(self, key, held)

    @asynccontextmanager
    async def asking(self, key: str, span: Span | None) -> AsyncIterator[None]:
        asked: Hold = await self.disk.in_thread(lambda: ask_for(self._open, key, WHOLE if span is None else span))
        try:
            yield
        finally:
            asked.close()

    async def drop(self, key: str) -> None:
        await self.store.delete(key)

    async def listed(self) -> AsyncIterator[StoredBlob]:
        """Yield nothing: the files are spooled blobs."""
        objects: tuple[StoredBlob, ...] = ()
        for each in objects:
            yield each

    def _open(self, key: str) -> int | None:
        """Return a descriptor of the file of an unfinished blob, also of a published but uncommitted one."""
        try:
            return os.open(self.folder / checked(key), os.O_RDWR | SAFE)
        except FileNotFoundError:
            # In this order, since publishing moves the file from the first place to the second.
            return self.store.open_unfinished(key)


class FilePart:
    """The HeldPart port."""

    def __init__(self, parts: FileParts, key: str, span: Span, hold: Hold) -> None:
        self._parts = parts
        self._key = key
        self._bytes = _HeldBytes(hold, span)
        prefix = parts.prefixes.get(key)
        self._writer = BufferedWriter(parts.disk, self._bytes.put, prefix if prefix.end == span.start else None)
        self.write = self._writer.write

    @property
    def size(self) -> int:
        return self._writer.size

    def expect(self, present: Sequence[Span]) -> None:
        self._bytes.present = present

    async def sync(self, recorded: Sequence[StoredPart] = (), key: str | None = None) -> Sequence[StoredPart]:
        await self._writer.flush()
        await self._parts.disk.sync(self._bytes.sync, self.size)
        return ()

    def keep(self) -> None:
        if self._writer.hashes is not None:
            self._parts.prefixes.put(self._key, self._writer.hashes)

    async def wanted(self) -> bool:
        return await self._parts.disk.in_thread(self._bytes.are_wanted)

    async def release(self) -> None:
        await self._writer.end(partial(self._parts.disk.in_thread, self._bytes.close))


class _HeldBytes:
    """A span of the file, under a Hold. All of it blocks.

    A cancelled caller leaves its thread running, so the descriptor is used and closed under a lock.
    """

    def __init__(self, hold: Hold, span: Span) -> None:
        self.present: Sequence[Span] = ()
        self._hold = hold
        self._span = span
        self._position = self._synced = span.start
        self._filled: int | None = None  # where the data of the span ended before this request wrote
        self._failure: Exception | None = None
        self._lock = threading.Lock()

    def put(self, blocks: Blocks) -> None:
        with self._lock:
            if self._failure is not None:  # another flush was under way; its place in the file is not known any more
                raise self._failure
            descriptor = self._hold.number()
            if self._filled is None:
                self._filled = end_of_data(descriptor, self._span.start, self._span.end)
            begin = self._position
            end = begin + sum(map(len, blocks))
            try:
                for block in blocks:
                    self._put_block(descriptor, block)
                if begin < end:
                    start_writeback(descriptor, begin, end - begin)  # others write to the rest of the file
            except Exception as error:
                self._failure = error
                self._give_back(descriptor, max(self._synced, self._filled), end)
                raise

    def _give_back(self, descriptor: int, start: int, end: int) -> None:
        """Free the space of bytes that no row can name, when a write has failed: a full database needs it too.

        They fill what was a hole before this request, and are not synced. A row may name any others: the transaction of
        an earlier request may still succeed, after it got no reply.
        """
        if start < end:
            with suppress(OSError):
                erase(descriptor, start, end - start)

    def _put_block(self, descriptor: int, block: bytes | bytearray) -> None:
        start = self._position
        for span, present in split(Span(start, start + len(block)), self.present):
            data = memoryview(block)[span.start - start : span.end - start]
            if present:
                _compare(descriptor, data, span.start)
            else:
                _write(descriptor, data, span.start)
        self._position += len(block)

    def sync(self) -> None:
        with self._lock:
            self._synced = self._position
            sync_data(self._hold.number())

    def are_wanted(self) -> bool:
        """Return whether another request wants them. False while they are written or synced: ask again later."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            return is_wanted(self._hold, self._span)
        finally:
            self._lock.release()

    def close(self) -> None:
        with self._lock:
            self._hold.close()


class FileAssembly:
    """The Assembly port. Its descriptor is used and closed under a lock, as that of _HeldBytes."""

    def __init__(self, parts: FileParts, key: str, hold: Hold) -> None:
        self.key = key
        self._parts = parts
        self._path = parts.folder / key
        self._hold = hold
        self._size = 0
        self._lock = threading.Lock()

    @property
    def path(self) -> str:
        return str(self._path)

    async def seal(self, size: int, parts: AsyncIterable[StoredPart]) -> Digest:
        await self._parts.store.take_back(self.key, self._path)  # decoders read spooled files
        await self._parts.disk.in_thread(lambda: self._cut(size))
        self._size = size
        prefix = self._parts.prefixes.get(self.key)
        hashes = prefix.md5, prefix.sha256
        # Each in its own thread: together they take as long as the slower one.
        await asyncio.gather(*(self._hash(hash_, prefix.end, size) for hash_ in hashes))
        return Digest(size, *(hash_.hexdigest() for hash_ in hashes))

    def blocks(self) -> AsyncIterator[bytes]:
        return blocks_of_file(self._parts.disk, self._path, self._size)

    async def publish(self, media_type: str = BINARY) -> None:
        await self._parts.store.run(lambda: self._put(media_type), self._size)

    async def retract(self) -> None:
        """Do nothing: the next try publishes under the same key."""

    async def discard(self) -> None:
        await self._parts.store.delete(self.key)

    async def clear(self) -> None:
        self._parts.prefixes.drop(self.key)
        await self._parts.disk.in_thread(lambda: self._path.unlink(missing_ok=True))

    async def release(self) -> None:
        with suppress(UponceError):
            await unbroken(self._parts.disk.in_thread(self._close))

    async def _hash(self, hash_: Any, start: int, end: int) -> None:
        """Hash one step after the other, so that other large uploads get the thread between two steps."""
        lane = self._parts.disk.lane()
        while start < end:
            stop = min(start + _HASHED_AT_ONCE, end)
            await self._parts.disk.in_lane(lane, partial(self._hash_step, hash_, start, stop))
            start = stop

    def _hash_step(self, hash_: Any, start: int, end: int) -> None:
        """Read from another descriptor, which a cancelled caller cannot close. It shares the lock of the file."""
        with self._lock:
            descriptor = os.dup(self._hold.number())
        with closing_file(descriptor):
            for block in blocks_of(descriptor, start, end):
                hash_.update(block)

    def _cut(self, size: int) -> None:
        """Remove bytes after the end, which interrupted chunks may have left."""
        with self._lock:
            os.ftruncate(self._hold.number(), size)

    def _put(self, media_type: str) -> None:
        with self._lock:
            self._parts.store.put(self.key, self._path, self._hold.number(), media_type)

    def _close(self) -> None:
        with self._lock:
            self._hold.close()


def _compare(descriptor: int, data: memoryview, position: int) -> None:
    for part in _parts(data):
        if read_at(descriptor, position, len(part)) != part:
            raise other_bytes(position)
        position += len(part)


def other_bytes(position: int) -> ChunkConflict:
    return ChunkConflict(
        f"Other bytes have arrived before for this part of the file, at or after byte {position}. Send the same file "
        "as before, or begin again with another X-Unique-Upload-Id."
    )


def _write(descriptor: int, data: memoryview, position: int) -> None:
    """Write all bytes: one `pwrite` may write fewer than it gets."""
    while data:
        written = os.pwrite(descriptor, data, position)
        data, position = data[written:], position + written


def _parts(data: memoryview) -> Iterator[memoryview]:
    return (data[start : start + BLOCK_BYTES] for start in range(0, len(data), BLOCK_BYTES))
