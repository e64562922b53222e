"""The folder of files that are arriving: whole uploads, and blobs that arrive in parts.

Decoders read files. A refusal costs nothing while the bytes are not yet in a distant store. So every blob is spooled on
the disk of its server first, whatever its store.
"""

import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path

from uponce.adapters.files import SAFE, blobs_in, checked, make_one_folder
from uponce.adapters.spool.disk import Disk
from uponce.adapters.spool.locks import WHOLE, Hold, ask_for, hold
from uponce.adapters.spool.parts import FileAssembly, FilePart, Prefixes, make_empty
from uponce.adapters.spool.uploads import Destination, SpooledChunk, SpooledUpload
from uponce.app.ports import Ids, StoredBlob
from uponce.core.spans import Span

_LIST_BATCH = 100


class Spool:
    """One file for each blob, named by the blob's key. `store` takes the complete files."""

    def __init__(self, folder: Path, disk: Disk, store: Destination, ids: Ids) -> None:
        self.folder = folder
        self.disk = disk
        self._store = store
        self._ids = ids
        self._prefixes = Prefixes()

    def open(self) -> None:
        """Make the folder. Its parent must exist. Raise OSError if that fails."""
        make_one_folder(self.folder)

    async def receive(self, key: str | None = None) -> SpooledUpload:
        if key is not None:
            await self.drop(key)  # an interrupted copy may have left it
        return SpooledUpload(self.folder, key or self._ids.hex(32), self.disk, self._store)

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
        return FileAssembly(self.folder, key, self.disk, self._store, held, self._prefixes)

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
            # In this order, since publishing renames the first file to the second.
            return self._store.open_unfinished(key)

    async def drop(self, key: str) -> None:
        """Delete the file of this blob if it exists."""
        self._prefixes.drop(key)
        await self.disk.in_thread(lambda: (self.folder / checked(key)).unlink(missing_ok=True))

    def spooled(self) -> AsyncIterator[StoredBlob]:
        return in_batches(self.disk.in_thread, blobs_in(self.folder))

    async def sweep(self, older_than: float, spare: Collection[str]) -> int:
        def sweep() -> int:
            old = [blob.key for blob in blobs_in(self.folder) if blob.age >= older_than and blob.key not in spare]
            for key in old:
                (self.folder / key).unlink(missing_ok=True)
            return len(old)

        return await self.disk.in_thread(sweep)

    async def ping(self) -> None:
        """Check only whether the folder may be written and has space: a probe file would cost an fsync each time."""

        def probe() -> None:
            if not os.access(self.folder, os.W_OK):
                raise PermissionError(errno.EACCES, "the spool folder is not writable")
            disk = os.statvfs(self.folder)
            if disk.f_bavail == 0:
                raise OSError(errno.ENOSPC, "no space left")
            if disk.f_files and disk.f_favail == 0:  # file systems that make inodes on demand have no count of them
                raise OSError(errno.ENOSPC, "no inodes left")

        await self.disk.in_thread(probe)


Run = Callable[[Callable[[], list[StoredBlob]]], Awaitable[list[StoredBlob]]]


async def in_batches(run: Run, blobs: Iterator[StoredBlob]) -> AsyncIterator[StoredBlob]:
    """Yield the blobs of a blocking iterator."""
    while batch := await run(lambda: list(islice(blobs, _LIST_BATCH))):
        for blob in batch:
            yield blob
