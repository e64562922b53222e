"""The BlobStore port: a folder for what arrives, the spool, and a store for what is complete.

Decoders read files, and a refusal is free only before the bytes are in a store far away. So every blob is spooled on
the disk of its server first, whatever its store.
"""

import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import Protocol

from uponce.adapters.files import SAFE, blobs_in, checked
from uponce.adapters.spool.disk import Disk
from uponce.adapters.spool.locks import WHOLE, Hold, ask_for, hold
from uponce.adapters.spool.parts import FileAssembly, FilePart, Prefixes, make_empty
from uponce.adapters.spool.uploads import Destination, SpooledChunk, SpooledUpload
from uponce.app.ports import FrontServer, GroupStore, Ids, OpenBlob, Presigner, SharedParts, StoredBlob
from uponce.core.spans import Span
from uponce.core.values import Digest

_LIST_BATCH = 100


class Store(Destination, Protocol):
    """Keeps complete blobs. The methods that BlobStore also has do what BlobStore promises."""

    @property
    def group_store(self) -> GroupStore | None: ...

    @property
    def is_remote(self) -> bool: ...

    def prepare(self, spool: Path) -> None:
        """Make the folders, that of the spool included. Raise SettingRefused if they cannot be used."""

    def close(self) -> None: ...

    def describe(self) -> str:
        """Return how blobs are stored, in words for an operator. Blocks."""

    def front(self, prefix: str) -> FrontServer | None:
        """Return how a web server reads the blobs, or None if it cannot."""

    def presigner(self, seconds: int) -> Presigner | None:
        """Return what makes URLs of the store itself, or None if it has no URLs."""

    async def open(self, key: str) -> OpenBlob | None: ...

    def open_now(self, key: str) -> OpenBlob | None: ...

    def published(self, prefix: str = "") -> AsyncIterator[StoredBlob]: ...

    def listings(self, first: str) -> Iterable[AsyncIterator[StoredBlob]]: ...

    async def digest(self, key: str) -> Digest | None: ...

    async def owner(self) -> str | None: ...

    async def set_owner(self, owner: str, *, replace: bool = False) -> None: ...

    async def sweep(self) -> None:
        """Remove packs and other places that hold no blob any more."""

    async def ping(self) -> None: ...


class Blobs:
    """One file in the spool `folder` for each blob that arrives, named by its key. `store` takes the complete files.

    Call `open_store` before use and `close` after.
    """

    shared: SharedParts | None = None

    def __init__(self, folder: Path, disk: Disk, store: Store, ids: Ids) -> None:
        self.folder = folder
        self.disk = disk
        self.store = store
        self._ids = ids
        self._prefixes = Prefixes()
        self.group_store, self.is_remote = store.group_store, store.is_remote
        self.open, self.open_now = store.open, store.open_now
        self.published, self.listings, self.digest = store.published, store.listings, store.digest
        self.owner, self.set_owner = store.owner, store.set_owner

    def open_store(self) -> None:
        """Make the folders. Raise SettingRefused if they cannot be used."""
        self.store.prepare(self.folder)

    def close(self) -> None:
        self.store.close()
        self.disk.close()

    async def receive(self, key: str | None = None) -> SpooledUpload:
        if key is not None:
            await self._drop(key)  # a copy that was broken off left it
        return SpooledUpload(self.folder, key or self._ids.hex(32), self.disk, self.store)

    async def receive_chunk(self) -> SpooledChunk:
        return SpooledChunk(self.folder / self._ids.hex(32), self.disk)

    async def begin(self) -> str:
        key = self._ids.hex(32)
        await self.disk.in_thread(lambda: make_empty(self.folder, key))
        return key

    async def hold(self, key: str, span: Span) -> FilePart:
        held = await self.disk.in_thread(lambda: hold(self._open, key, span))
        return FilePart(self.disk, key, span, held, self._prefixes)

    async def assembly(self, key: str) -> FileAssembly:
        held = await self.disk.in_thread(lambda: hold(self._open, key, WHOLE))
        return FileAssembly(self.folder, key, self.disk, self.store, held, self._prefixes)

    @asynccontextmanager
    async def asking(self, key: str, span: Span | None) -> AsyncIterator[None]:
        asked: Hold = await self.disk.in_thread(lambda: ask_for(self._open, key, WHOLE if span is None else span))
        try:
            yield
        finally:
            asked.close()

    def _open(self, key: str) -> int | None:
        """Return a descriptor of the file of an unfinished blob, also of a published but uncommitted one."""
        try:
            return os.open(self.folder / checked(key), os.O_RDWR | SAFE)
        except FileNotFoundError:
            # In this order, since publishing moves the file from the first place to the second.
            return self.store.open_unfinished(key)

    async def delete(self, key: str) -> None:
        await self._drop(key)
        await self.store.withdraw(key)

    async def _drop(self, key: str) -> None:
        """Delete the spooled file of this blob if it exists."""
        self._prefixes.drop(key)
        await self.disk.in_thread(lambda: (self.folder / checked(key)).unlink(missing_ok=True))

    def spooled(self) -> AsyncIterator[StoredBlob]:
        return in_batches(self.disk.in_thread, blobs_in(self.folder))

    async def sweep_spool(self, older_than: float, spare: Collection[str] = ()) -> int:
        def sweep() -> int:
            old = [blob.key for blob in blobs_in(self.folder) if blob.age >= older_than and blob.key not in spare]
            for key in old:
                (self.folder / key).unlink(missing_ok=True)
            return len(old)

        await self.store.sweep()
        return await self.disk.in_thread(sweep)

    async def ping(self) -> None:
        """Check that the folder may be written and has space. A probe file for each check would cost an fsync."""

        def probe() -> None:
            if not os.access(self.folder, os.W_OK):
                raise PermissionError(errno.EACCES, "the spool folder is not writable")
            disk = os.statvfs(self.folder)
            if disk.f_bavail == 0:
                raise OSError(errno.ENOSPC, "no space left")
            if disk.f_files and disk.f_favail == 0:  # file systems that make inodes at need count none
                raise OSError(errno.ENOSPC, "no inodes left")

        await self.disk.in_thread(probe)
        await self.store.ping()


Run = Callable[[Callable[[], list[StoredBlob]]], Awaitable[list[StoredBlob]]]


async def in_batches(run: Run, blobs: Iterator[StoredBlob]) -> AsyncIterator[StoredBlob]:
    """Yield the blobs of a blocking iterator."""
    while batch := await run(lambda: list(islice(blobs, _LIST_BATCH))):
        for blob in batch:
            yield blob
