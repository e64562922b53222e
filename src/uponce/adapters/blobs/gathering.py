"""Writes gathered to half a mebibyte and flushed by threads, at most two flushes at a time.

So a writer holds a mebibyte and a half whatever its file's size, or three blocks of a large body, and a small file
costs one thread hop. A flush that failed stays in `_flushing`: whatever is tried afterwards fails in the same way.
"""

import asyncio
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from uponce.adapters.blobs.files import guarded
from uponce.adapters.blobs.hashes import Hashes
from uponce.adapters.threads import Lane
from uponce.core.errors import UponceError

T = TypeVar("T")

_LARGE = 512 * 1024
_MOST_FLUSHES = 2


class Yard(Protocol):
    """What those who work on staged files need of their store."""

    staging: Path

    @property
    def buffer_bytes(self) -> int: ...

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run what touches the local disk."""

    def lane(self) -> Lane:
        """Return a lane on the threads for large files."""

    async def in_publisher(self, work: Callable[[], T], size: int = 0) -> T:
        """Run `put`, of so many bytes."""

    def put(self, key: str, path: Path, descriptor: int, media_type: str) -> None:
        """The open file at `path` becomes durable under `key`; it may be gone from its path then. Blocks."""

    async def withdraw(self, key: str) -> None:
        """Delete what is published under `key`, if anything is."""

    async def take_back(self, key: str) -> None:
        """A blob that was published, and not committed, is a staged file again, if it is none."""

    async def delete(self, key: str) -> None:
        """What is staged or published under `key`."""

    def open_unfinished(self, key: str) -> int | None:
        """A descriptor of the file of an unfinished blob, also of one that was published and not committed. Blocks."""


class Gathering(ABC):
    """A writer of one file.

    A cancelled caller leaves its thread running: the descriptor is made, used and closed under `_lock` only, or a late
    write could land in whatever file got the same number next.
    """

    def __init__(self, store: Yard) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._size = 0
        self._pending: list[bytes | bytearray] = []
        self._pending_size = 0
        self._hashes: Hashes | None = None
        self._flushing: deque[asyncio.Future[None]] = deque()
        self._lanes: tuple[Lane, Lane] | None = None

    @property
    def size(self) -> int:
        return self._size

    async def write(self, data: bytes | bytearray) -> None:
        self._pending.append(data)
        self._pending_size += len(data)
        self._size += len(data)
        if self._pending_size >= self._store.buffer_bytes:
            await self._flush_pending()

    async def _flush_pending(self) -> None:
        """Begin a flush. Large ones may follow one another closely; a small one is the last one, or that of a slow
        upload."""
        is_large = self._pending_size >= _LARGE
        await self._settle(_MOST_FLUSHES - 1 if is_large else 0)
        blocks, size = self._pending, self._pending_size
        self._pending, self._pending_size = [], 0
        flush = self._flush_in_lanes if is_large else self._flush_in_thread
        self._flushing.append(asyncio.ensure_future(flush(blocks, size)))

    async def _flush_in_thread(self, blocks: Sequence[bytes | bytearray], size: int) -> None:
        await self._store.in_thread(lambda: self._write_and_hash(blocks))
        self._count(size)

    async def _flush_in_lanes(self, blocks: Sequence[bytes | bytearray], size: int) -> None:
        """MD5 takes as long as all the rest, so beside it large files take half the time."""
        if self._lanes is None:
            self._lanes = self._store.lane(), self._store.lane()
        writing, hashing = self._lanes
        await asyncio.gather(
            writing.run(lambda: guarded(partial(self._write, blocks))), hashing.run(lambda: self._hash(blocks))
        )
        self._count(size)

    def _count(self, size: int) -> None:
        if self._hashes is not None:
            self._hashes.end += size

    def _write_and_hash(self, blocks: Sequence[bytes | bytearray]) -> None:
        # As one block: each call on one lets go of the interpreter, and has to get it back from other threads.
        whole = [b"".join(blocks)]
        self._write(whole)
        self._hash(whole)

    def _write(self, blocks: Sequence[bytes | bytearray]) -> None:
        self._flush(blocks)
        if self._hashes is not None:
            self._hashes.feed_sha256(blocks)

    def _hash(self, blocks: Sequence[bytes | bytearray]) -> None:
        if self._hashes is not None:
            self._hashes.feed_md5(blocks)

    async def _settle(self, most: int = 0) -> None:
        """Return when at most so many flushes are under way."""
        while len(self._flushing) > most:
            await asyncio.shield(self._flushing[0])
            self._flushing.popleft()

    async def _flush_all(self) -> None:
        await self._flush_pending()
        await self._settle()

    async def _give_up_flushes(self) -> None:
        await asyncio.shield(asyncio.gather(*self._flushing, return_exceptions=True))

    @abstractmethod
    def _close(self) -> None:
        """Close the file; under the lock."""

    @abstractmethod
    def _flush(self, blocks: Sequence[bytes | bytearray]) -> None:
        """Write these bytes, which follow those before; in a thread."""


class GatheringPiece(Gathering):
    """A writer of one piece of a blob, which may be let go at any time."""

    async def release(self) -> None:
        self._pending.clear()
        # The caller's cancellation must not take this off the threads' queue, and the descriptor with it.
        with suppress(UponceError):
            await asyncio.shield(asyncio.ensure_future(self._store.in_thread(self._release)))
        await self._give_up_flushes()

    def _release(self) -> None:
        with self._lock:
            self._close()
