"""Whole uploads while they arrive: one file each in the staging folder."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path

from uponce.adapters.blobs.files import BLOCK_BYTES, SAFE, OpenFile, write_all
from uponce.adapters.blobs.gathering import Gathering, Yard
from uponce.adapters.blobs.hashes import Hashes
from uponce.adapters.system import start_writeback
from uponce.core.errors import UponceError
from uponce.core.formats import BINARY
from uponce.core.values import Digest


class FileStage(Gathering):
    """The Stage port. Touches nothing at first: the first flush makes the file."""

    def __init__(self, store: Yard, key: str) -> None:
        super().__init__(store)
        self._hashes: Hashes = Hashes()
        self.key = key
        self._path: Path = store.staging / key
        self._descriptor: int | None = None
        self._ended = False
        self._offered = False

    @property
    def path(self) -> str:
        return str(self._path)

    async def blocks(self) -> AsyncIterator[bytes]:
        descriptor = await self._store.in_thread(lambda: os.open(self._path, os.O_RDONLY | SAFE))
        blob = OpenFile(self._store, descriptor, self._size)
        try:
            for offset in range(0, self._size, BLOCK_BYTES):
                yield await blob.read(offset, BLOCK_BYTES)
        finally:
            blob.close()

    async def seal(self) -> Digest:
        await self._flush_all()  # also of nothing: the file of an empty blob has to exist
        return self._hashes.digest()

    async def publish(self, media_type: str = BINARY) -> None:
        await self._settle()
        await self._store.in_publisher(lambda: self._publish(media_type), self._size)

    def _publish(self, media_type: str) -> None:
        with self._lock:
            try:
                descriptor = self._writable()
                self._offered = True
                self._store.put(self.key, self._path, descriptor, media_type)
                self._path.unlink(missing_ok=True)
            finally:
                # Also after a failure: the kernel reports a failed fsync once, so a second one would prove nothing.
                self._close()

    async def discard(self) -> None:
        self._pending.clear()
        # The caller's cancellation must not take this off the threads' queue, and the descriptor with it.
        ending = asyncio.ensure_future(self._discard())
        with suppress(UponceError):  # what stays behind is the sweeper's
            await asyncio.shield(ending)
        await self._give_up_flushes()

    async def _discard(self) -> None:
        await self._store.in_thread(self._unlink)
        if self._offered:
            await self._store.withdraw(self.key)

    def _unlink(self) -> None:
        with self._lock:
            self._close()
            self._path.unlink(missing_ok=True)

    def _flush(self, blocks: Sequence[bytes | bytearray]) -> None:
        with self._lock:
            descriptor = self._writable()
            write_all(descriptor, blocks)
            start_writeback(descriptor)

    def _writable(self) -> int:
        if self._ended:
            raise OSError(errno.EBADF, "the stage has ended")
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | SAFE, 0o600)
        return self._descriptor

    def _close(self) -> None:
        self._ended = True
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
