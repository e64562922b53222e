"""Whole uploads while they arrive: one file each in the spool."""

import errno
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Protocol, TypeVar

from uponce.adapters.files import BLOCK_BYTES, SAFE, OpenFile, make_file
from uponce.adapters.spool.buffered import Blocks, BufferedWriter
from uponce.adapters.spool.disk import Disk
from uponce.adapters.spool.hashes import Hashes
from uponce.adapters.system import start_writeback, write_all
from uponce.core.errors import StorageUnavailable
from uponce.core.formats import BINARY
from uponce.core.values import Digest

T = TypeVar("T")


class Destination(Protocol):
    """The store that takes complete files."""

    async def run(self, work: Callable[[], T], size: int) -> T:
        """Run `put` for `size` bytes, in a thread."""

    def put(self, key: str, path: Path, descriptor: int, media_type: str) -> None:
        """Make the open file at `path` durable under `key`. The file may leave its path. Blocks."""

    async def withdraw(self, key: str) -> None:
        """Delete the blob `key` if it exists."""


class SpooledChunk:
    """The SpooledChunk port. The first flush makes the file."""

    def __init__(self, path: Path, disk: Disk, hashes: Hashes | None = None) -> None:
        """With `hashes`, the bytes are hashed, and begin to go to the disk at once."""
        self._disk = disk
        self._file = NewFile(path, writes_back=hashes is not None)
        self._writer = BufferedWriter(disk, self._file.append, hashes)
        self.write = self._writer.write

    @property
    def size(self) -> int:
        return self._writer.size

    def blocks(self) -> AsyncIterator[bytes]:
        return blocks_of_file(self._disk, self._file.path, self.size)

    async def flush(self) -> None:
        await self._writer.flush()  # also without bytes: the file of an empty blob must exist

    async def discard(self) -> None:
        await self._writer.end(self._discard)  # the sweeper deletes what stays

    async def _discard(self) -> None:
        await self._disk.in_thread(self._file.remove)


class SpooledUpload(SpooledChunk):
    """The Spooled port."""

    def __init__(self, folder: Path, key: str, disk: Disk, store: Destination) -> None:
        self.key = key
        self._store = store
        self._hashes = Hashes()
        self._offered = False
        super().__init__(folder / key, disk, self._hashes)

    @property
    def path(self) -> str:
        return str(self._file.path)

    async def seal(self) -> Digest:
        await self.flush()
        return self._hashes.digest()

    async def publish(self, media_type: str = BINARY) -> None:
        def put(descriptor: int) -> None:
            self._offered = True
            self._store.put(self.key, self._file.path, descriptor, media_type)

        await self._writer.settle()
        await self._store.run(lambda: self._file.give(put), self.size)

    async def _discard(self) -> None:
        await super()._discard()
        if self._offered:
            await self._store.withdraw(self.key)


class NewFile:
    """A file that the first write makes. All of it blocks.

    With `writes_back` the bytes begin to go to the disk at once. A nameless file loses its path as soon as it is made,
    and closing deletes it. If the process dies before that, the sweeper finds the file.

    A cancelled caller leaves its thread running. So the descriptor is made, used and closed under a lock: a late write
    could otherwise go to another file that got the same descriptor number.
    """

    def __init__(self, path: Path, *, writes_back: bool = False, is_nameless: bool = False) -> None:
        self.path = path
        self._writes_back = writes_back
        self._is_nameless = is_nameless
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._ended = False

    def append(self, blocks: Blocks) -> None:
        with self._lock:
            descriptor = self._writable()
            write_all(descriptor, blocks)
            if self._writes_back:
                start_writeback(descriptor)

    def rewind(self) -> None:
        """Let the next bytes replace those that are in the file."""
        with self._lock:
            if self._descriptor is not None:
                os.lseek(self._descriptor, 0, os.SEEK_SET)

    def duplicate(self) -> int:
        """Return another descriptor of the file, which `close` leaves open."""
        with self._lock:
            return os.dup(self._writable())

    def give(self, put: Callable[[int], None]) -> None:
        """Let `put` take the open file. Then end."""
        with self._lock:
            try:
                put(self._writable())
                self.path.unlink(missing_ok=True)
            finally:
                # Also after a failure: the kernel reports a failed fsync once, so a second one would prove nothing.
                self._close()

    def remove(self) -> None:
        self.close()
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        with self._lock:
            self._close()

    def _writable(self) -> int:
        if self._ended:
            raise OSError(errno.EBADF, "the upload has ended")
        if self._descriptor is None:
            self._descriptor = make_file(self.path)
            if self._is_nameless:
                self.path.unlink()
        return self._descriptor

    def __del__(self) -> None:
        self._close()  # without a thread to discard the upload, an open deleted file would keep its space

    def _close(self) -> None:
        self._ended = True
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


async def blocks_of_file(disk: Disk, path: Path, size: int) -> AsyncIterator[bytes]:
    """Yield the first `size` bytes of a file in order. Raise StorageUnavailable if the file has fewer."""
    file = await disk.in_thread(lambda: OpenFile(disk.in_thread, os.open(path, os.O_RDONLY | SAFE), size))
    try:
        for offset in range(0, size, BLOCK_BYTES):
            block = await file.read_in_thread(offset, BLOCK_BYTES)  # a large block costs more than the trip to a thread
            if len(block) < min(BLOCK_BYTES, size - offset):
                raise StorageUnavailable("A spooled file cannot be read.", detail=f"it ends before {size} bytes")
            yield block
    finally:
        file.close()
