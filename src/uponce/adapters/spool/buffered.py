"""Writes gathered to half a mebibyte and flushed by threads, at most two flushes at a time.

So a writer holds a mebibyte and a half, or three blocks of a large body, whatever its file's size. A small file costs
one trip to a thread.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial

from uponce.adapters.spool.disk import Disk
from uponce.adapters.spool.hashes import Hashes
from uponce.adapters.threads import Lane
from uponce.app.unbroken import unbroken
from uponce.core.errors import UponceError

Blocks = Sequence[bytes | bytearray]

_LARGE = 512 * 1024
_MOST_FLUSHES = 2


class BufferedWriter:
    """Writes the bytes of one file, in order. `put` appends blocks; threads call it, one call at a time.

    With `hashes` the bytes are hashed as well. After a flush has failed, every later call fails in the same way.
    """

    def __init__(self, disk: Disk, put: Callable[[Blocks], None], hashes: Hashes | None = None) -> None:
        self.size = 0
        self.hashes = hashes
        self._disk = disk
        self._put = put
        self._pending: list[bytes | bytearray] = []
        self._pending_size = 0
        self._flushing: deque[asyncio.Future[None]] = deque()
        self._lanes: tuple[Lane, Lane] | None = None
        self._was_large = False  # the last flush
        disk.count(self)

    async def write(self, data: bytes | bytearray) -> None:
        self._pending.append(data)
        self._pending_size += len(data)
        self.size += len(data)
        if self._pending_size >= self._disk.buffer_bytes:
            await self._flush()

    async def flush(self) -> None:
        """Return when all bytes are written and hashed. `put` is called at least once, also for no bytes."""
        await self._flush()
        await self.settle()

    async def settle(self, most: int = 0) -> None:
        """Return when at most `most` flushes are under way."""
        while len(self._flushing) > most:
            await asyncio.shield(self._flushing[0])
            self._flushing.popleft()

    async def end(self, closing: Callable[[], Awaitable[None]]) -> None:
        """Drop bytes that no flush has taken yet, close the file by `closing`, and return when no flush is under way.

        A flush or a closing that fails raises nothing.
        """
        self._pending.clear()
        # If the caller is cancelled, this must stay in the threads' queue, or the descriptor would never be closed.
        # One work: between two, a stop would find nothing to wait for, and cut the answer that comes after.
        await unbroken(self._end(closing))

    async def _end(self, closing: Callable[[], Awaitable[None]]) -> None:
        with suppress(UponceError):
            await closing()
        await asyncio.gather(*self._flushing, return_exceptions=True)

    async def _flush(self) -> None:
        """Begin a flush. A large one may begin before the last one ends, if that is large too: lanes keep their order.

        A small one goes to any thread, so it has none beside it.
        """
        is_large = self._pending_size >= _LARGE
        await self.settle(_MOST_FLUSHES - 1 if is_large and self._was_large else 0)
        self._was_large = is_large
        blocks, size = self._pending, self._pending_size
        self._pending, self._pending_size = [], 0
        flush = self._flush_in_lanes if is_large else self._flush_in_thread
        flushing = asyncio.ensure_future(flush(blocks, size))
        flushing.add_done_callback(_see)
        self._flushing.append(flushing)

    async def _flush_in_thread(self, blocks: Blocks, size: int) -> None:
        await self._disk.in_thread(lambda: self._write_and_hash(blocks))
        self._count(size)

    async def _flush_in_lanes(self, blocks: Blocks, size: int) -> None:
        """Write and hash at the same time. MD5 takes as long as all other work, so a large file takes half the time."""
        if self._lanes is None:
            self._lanes = self._disk.lane(), self._disk.lane()
        writing, hashing = self._lanes
        await asyncio.gather(
            self._disk.in_lane(writing, partial(self._write, blocks)),
            self._disk.in_lane(hashing, partial(self._hash, blocks)),
        )
        self._count(size)

    def _count(self, size: int) -> None:
        if self.hashes is not None:
            self.hashes.end += size

    def _write_and_hash(self, blocks: Blocks) -> None:
        # As one block: each call on a block releases the interpreter, and must get it back from other threads.
        whole = [b"".join(blocks)]
        self._write(whole)
        self._hash(whole)

    def _write(self, blocks: Blocks) -> None:
        self._put(blocks)
        if self.hashes is not None:
            for block in blocks:
                self.hashes.sha256.update(block)

    def _hash(self, blocks: Blocks) -> None:
        if self.hashes is not None:
            for block in blocks:
                self.hashes.md5.update(block)


def _see(flushing: asyncio.Future[None]) -> None:
    """Mark the error of a flush as seen: the upload was discarded before its flush ended, so no caller waits for it."""
    if not flushing.cancelled():
        flushing.exception()
