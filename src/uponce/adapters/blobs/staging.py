"""What all blob stores have in common: bytes arrive in files of a local folder, whatever becomes of them.

Decoders read files, and nothing can be refused for free once it is in a store far away. So every blob is staged on
the disk of its server; a store only says where it goes from there.
"""

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import TypeVar
from weakref import WeakSet

from uponce.adapters.blobs.files import SAFE, blobs_in, checked, guarded
from uponce.adapters.blobs.gathering import Gathering
from uponce.adapters.blobs.locks import WHOLE, ask_for, hold
from uponce.adapters.blobs.pieces import FileAssembly, FilePiece, Prefixes, make_empty
from uponce.adapters.blobs.stages import FileStage
from uponce.adapters.threads import Lane, Threads
from uponce.app.ports import Ids, OpenBlob, SharedPieces, StoredBlob
from uponce.core.spans import Span
from uponce.core.values import Digest

T = TypeVar("T")

_MOST_BUFFERED = 512 * 1024  # large enough for the lanes
_LEAST_BUFFERED = 64 * 1024
_ALL_BUFFERED = 32 * 1024 * 1024
_QUICKLY_SYNCED = 1024 * 1024
WORKERS = 8
LARGE_WORKERS = 4
_LIST_BATCH = 500


class StagingStore(ABC):
    """The half of the BlobStore port before publication. `workers` threads do what touches the local disk.

    Large files have threads of their own, so that a small upload waits for no gigabytes.
    """

    def __init__(self, staging: Path, *, ids: Ids, workers: int = WORKERS) -> None:
        self.staging = staging
        self._ids = ids
        self._threads = Threads(workers, "uponce-disk")
        self._large = Threads(LARGE_WORKERS, "uponce-large", modest=True)
        self._syncing = Threads(LARGE_WORKERS, "uponce-sync")
        self._stages: WeakSet[Gathering] = WeakSet()
        self._prefixes = Prefixes()

    @property
    def shared(self) -> SharedPieces | None:
        return None

    def close(self) -> None:
        for threads in (self._threads, self._large, self._syncing):
            threads.close()

    async def stage(self, key: str | None = None) -> FileStage:
        stage = FileStage(self, self._ids.hex(32) if key is None else checked(key))
        self._stages.add(stage)
        return stage

    async def begin(self) -> str:
        key = self._ids.hex(32)
        await self.in_thread(lambda: make_empty(self, key))
        return key

    async def piece(self, key: str, span: Span) -> FilePiece:
        held = await self.in_thread(lambda: hold(self, key, span))
        piece = FilePiece(self, key, span, held, self._prefixes)
        self.count(piece)
        return piece

    async def assembly(self, key: str) -> FileAssembly:
        held = await self.in_thread(lambda: hold(self, key, WHOLE))
        return FileAssembly(self, key, held, self._prefixes)

    @asynccontextmanager
    async def asking(self, key: str, span: Span | None) -> AsyncIterator[None]:
        asked = await self.in_thread(lambda: ask_for(self, key, WHOLE if span is None else span))
        try:
            yield
        finally:
            asked.close()

    def count(self, writer: Gathering) -> None:
        """It gathers bytes, for as long as it is there."""
        self._stages.add(writer)

    @property
    def buffer_bytes(self) -> int:
        """How much one upload may gather before it is flushed: less when many run, so that slow ones stay cheap."""
        return max(_LEAST_BUFFERED, min(_MOST_BUFFERED, _ALL_BUFFERED // (len(self._stages) or 1)))

    async def delete(self, key: str) -> None:
        def unlink() -> None:
            (self.staging / checked(key)).unlink(missing_ok=True)

        self._prefixes.drop(key)
        await self.in_thread(unlink)
        await self.withdraw(key)

    def staged(self) -> AsyncIterator[StoredBlob]:
        return in_batches(self.in_thread, blobs_in(self.staging))

    async def sweep_stages(self, older_than: float, spare: Collection[str] = ()) -> int:
        def sweep() -> int:
            old = [blob.key for blob in blobs_in(self.staging) if blob.age >= older_than and blob.key not in spare]
            for key in old:
                (self.staging / key).unlink(missing_ok=True)
            return len(old)

        return await self.in_thread(sweep)

    async def ping(self) -> None:
        """Only asks whether the folder may be written and has space: a probe file per look would cost an fsync."""

        def probe() -> None:
            if not os.access(self.staging, os.W_OK):
                raise PermissionError(errno.EACCES, "the staging folder is not writable")
            disk = os.statvfs(self.staging)
            if disk.f_bavail == 0:
                raise OSError(errno.ENOSPC, "no space left")
            if disk.f_files and disk.f_favail == 0:  # file systems that make inodes at need count none
                raise OSError(errno.ENOSPC, "no inodes left")

        await self.in_thread(probe)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run blocking work; what the operating system refuses becomes one of our errors."""
        return await self._threads.run(lambda: guarded(work))

    def lane(self) -> Lane:
        return Lane(self._large)

    async def in_publisher(self, work: Callable[[], T], size: int = 0) -> T:
        """An fsync of a large file may take seconds, for which no small one waits."""
        if size <= _QUICKLY_SYNCED:
            return await self.in_thread(work)
        return await self._syncing.run(lambda: guarded(work))

    def open_unfinished(self, key: str) -> int | None:
        try:
            return os.open(self.staging / checked(key), os.O_RDWR | SAFE)
        except FileNotFoundError:
            return None

    @abstractmethod
    def open_store(self) -> None:
        """Make the folders. SettingRefused when they cannot be used."""

    # The rest is as BlobStore and Yard say.

    @abstractmethod
    def describe(self) -> str:
        """How blobs are stored, in words for an operator. Blocks."""

    @abstractmethod
    async def open(self, key: str) -> OpenBlob | None: ...

    @abstractmethod
    def open_now(self, key: str) -> OpenBlob | None: ...

    @abstractmethod
    def published(self, prefix: str = "") -> AsyncIterator[StoredBlob]: ...

    @abstractmethod
    async def digest(self, key: str) -> Digest | None: ...

    @abstractmethod
    def put(self, key: str, path: Path, descriptor: int, media_type: str) -> None: ...

    @abstractmethod
    async def withdraw(self, key: str) -> None: ...

    async def take_back(self, key: str) -> None:
        """Whole files are copied to where they are kept, unless a store moves them."""
        return


Run = Callable[[Callable[[], list[StoredBlob]]], Awaitable[list[StoredBlob]]]


async def in_batches(run: Run, blobs: Iterator[StoredBlob]) -> AsyncIterator[StoredBlob]:
    """Blobs that come from a blocking iterator."""
    while batch := await run(lambda: list(islice(blobs, _LIST_BATCH))):
        for blob in batch:
            yield blob
