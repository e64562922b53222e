"""The BlobStore port: a folder for what arrives, the spool, and a store for what is complete.

Decoders read files, and a refusal is free only before the bytes are in a store far away. So a blob is spooled on the
disk of its server first, whatever its store. A small one may stay in memory.
"""

import errno
import os
from abc import abstractmethod
from collections.abc import AsyncIterator, Collection, Iterator
from itertools import islice
from pathlib import Path

from uponce.adapters.files import Run, blobs_in, checked, has_no_inodes
from uponce.adapters.spool.disk import Disk
from uponce.adapters.spool.uploads import Destination, SpooledChunk, SpooledUpload
from uponce.app.ports import BlobStore, HoldSmall, Ids, LateGroup, LocationOf, OpenBlob, Presigner, PutGroup, StoredBlob

_LIST_BATCH = 100


class Blobs(BlobStore, Destination):
    """The base class of the stores: one file in the spool `folder` for each blob that arrives, named by its key.

    A subclass keeps the complete blobs. Call `open_store` before use and `close` after.
    """

    def __init__(self, folder: Path, disk: Disk, ids: Ids) -> None:
        self.folder = folder
        self.disk = disk
        self._ids = ids

    @abstractmethod
    def open_store(self) -> None:
        """Make the folders, that of the spool included. Raise SettingRefused if they cannot be used."""

    @abstractmethod
    def describe(self) -> str:
        """Return how blobs are stored, in words for an operator. Blocks."""

    @property
    def put_group(self) -> PutGroup | None:
        """Return what stores many small blobs at once, or None."""
        return None

    @property
    def hold_small(self) -> HoldSmall | None:
        """Return what stores a small blob from memory, or None."""
        return None

    @property
    def late_group(self) -> LateGroup | None:
        """Return what does the same in two steps, or None."""
        return None

    def location_of(self, prefix: str) -> LocationOf | None:
        """Return the names that a web server has for the blobs, below `prefix`. Return None if it cannot read them."""
        return None

    def presigner(self, seconds: int) -> Presigner | None:
        """Return what makes URLs of the store itself, or None if it has no URLs."""
        return None

    def open_now(self, key: str) -> OpenBlob | None:
        return None

    def close(self) -> None:
        self.disk.close()

    async def receive(self, key: str | None = None) -> SpooledUpload:
        if key is not None:
            await self._drop(key)  # a copy that was broken off left it
        return SpooledUpload(self.folder, key or self._ids.hex(32), self.disk, self)

    async def receive_chunk(self) -> SpooledChunk:
        return SpooledChunk(self.folder / self._ids.hex(32), self.disk)

    async def delete(self, key: str) -> None:
        await self._drop(key)
        await self.withdraw(key)

    async def _drop(self, key: str) -> None:
        """Delete the spooled file of this blob if it exists."""
        await self.disk.in_thread(lambda: (self.folder / checked(key)).unlink(missing_ok=True))

    def spooled(self) -> AsyncIterator[StoredBlob]:
        return in_batches(self.disk.in_thread, blobs_in(self.folder))

    async def sweep_spool(self, older_than: float, spare: Collection[str] = ()) -> int:
        def sweep() -> int:
            old = [blob.key for blob in blobs_in(self.folder) if blob.age >= older_than and blob.key not in spare]
            failures: list[OSError] = []
            for key in old:
                try:
                    (self.folder / key).unlink(missing_ok=True)
                except OSError as error:  # the files behind it may free a full disk
                    failures.append(error)
            if failures:
                raise failures[0]
            return len(old)

        return await self.disk.in_thread(sweep)

    async def ping(self) -> None:
        """Check that the folder may be written and has space. A probe file for each check would cost an fsync.

        The blobs of LocalBlobs are on the same file system, so this counts for them too.
        """

        def probe() -> None:
            if not os.access(self.folder, os.W_OK):
                raise PermissionError(errno.EACCES, "the spool folder is not writable")
            disk = os.statvfs(self.folder)
            if disk.f_bavail == 0:
                raise OSError(errno.ENOSPC, "no space left")
            if has_no_inodes(disk):
                raise OSError(errno.ENOSPC, "no inodes left")

        await self.disk.in_thread(probe)


async def in_batches(run: Run, blobs: Iterator[StoredBlob]) -> AsyncIterator[StoredBlob]:
    """Yield the blobs of a blocking iterator."""
    while batch := await run(lambda: list(islice(blobs, _LIST_BATCH))):
        for blob in batch:
            yield blob
