"""The BlobStore port on a local disk.

    <root>/staging/<key>         bytes that are arriving
    <root>/blobs/<kk>/<key>      published, immutable

Keys are 32 random hex digits; nothing that a client sends ever becomes part of a path.
"""

import asyncio
import errno
import hashlib
import os
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TypeVar

from uponce.app.ports import Ids, StoredBlob
from uponce.core.errors import SettingRefused, StorageFull, StorageUnavailable, UponceError
from uponce.core.values import Digest

T = TypeVar("T")

_KEY = re.compile(r"[0-9a-f]{32}")
_FLUSH_BYTES = 1024 * 1024
_THREADS = 8
_MAX_VECTOR = 1024  # IOV_MAX on Linux
_LIST_BATCH = 500
_PRIVATE = 0o700
_RETRY_SECONDS = 5


class LocalBlobStore:
    """Call `open_store` before use and `close` after."""

    def __init__(self, root: Path, *, ids: Ids) -> None:
        self._ids = ids
        self.staging = root / "staging"
        self._blobs = root / "blobs"
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="uponce-disk")

    def open_store(self) -> None:
        """Make the folders. SettingRefused when staging and blobs are on two file systems: a rename would copy."""
        try:
            for folder in (self.staging, self._blobs, *self._shards()):
                folder.mkdir(parents=True, exist_ok=True, mode=_PRIVATE)
            # All shards exist and are durable from the start, so that no upload depends on another one's fsync.
            for folder in (self._blobs, self._blobs.parent):
                _sync_folder(folder)
        except OSError as error:
            raise SettingRefused(f"UPONCE_STORAGE: {self._blobs.parent} cannot be used: {error}.") from error
        if self.staging.stat().st_dev != self._blobs.stat().st_dev:
            raise SettingRefused(f"UPONCE_STORAGE: {self.staging} and {self._blobs} must be on one file system.")

    def _shards(self) -> Iterator[Path]:
        return (self._blobs / f"{number:02x}" for number in range(256))

    def close(self) -> None:
        self._threads.shutdown()

    async def stage(self) -> "LocalStage":
        key = self._ids.hex(32)
        path = self.staging / key
        descriptor = await self.in_thread(lambda: os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | _SAFE, 0o600))
        return LocalStage(self, key, path, descriptor)

    async def open(self, key: str) -> "LocalBlob | None":
        return await self.in_thread(lambda: self._open(key))

    def _open(self, key: str) -> "LocalBlob | None":
        try:
            descriptor = os.open(self.path_of(key), os.O_RDONLY | _SAFE)
        except FileNotFoundError:
            return None
        return LocalBlob(self, descriptor, os.fstat(descriptor).st_size)

    async def delete(self, key: str) -> None:
        await self.in_thread(lambda: self.path_of(key).unlink(missing_ok=True))

    async def published(self) -> AsyncIterator[StoredBlob]:
        files = self._scan()
        while batch := await self.in_thread(lambda: list(islice(files, _LIST_BATCH))):
            for blob in batch:
                yield blob

    def _scan(self) -> Iterator[StoredBlob]:
        now = time.time()
        for folder in os.scandir(self._blobs):
            for entry in os.scandir(folder):
                with suppress(FileNotFoundError):
                    facts = entry.stat(follow_symlinks=False)
                    yield StoredBlob(entry.name, facts.st_size, now - facts.st_mtime)

    async def sweep_stages(self, older_than: float) -> int:
        def sweep() -> int:
            now, count = time.time(), 0
            for entry in os.scandir(self.staging):
                with suppress(FileNotFoundError):
                    if now - entry.stat(follow_symlinks=False).st_mtime >= older_than:
                        Path(entry.path).unlink()
                        count += 1
            return count

        return await self.in_thread(sweep)

    async def ping(self) -> None:
        """Only asks whether the folder may be written and has space: a probe file per look would cost an fsync."""

        def probe() -> None:
            if not os.access(self.staging, os.W_OK):
                raise PermissionError(errno.EACCES, "the staging folder is not writable")
            if os.statvfs(self.staging).f_bavail == 0:
                raise OSError(errno.ENOSPC, "no space left")

        await self.in_thread(probe)

    def path_of(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise StorageUnavailable("The stored bytes cannot be addressed.", detail=f"bad blob key {key!r}")
        return self._blobs / key[:2] / key

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run blocking work; what the operating system refuses becomes one of our errors."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, _guarded, work)


class LocalStage:
    """One file in the staging folder.

    Writes are gathered to a mebibyte and flushed by a thread, at most one flush at a time, so an upload holds
    about two mebibytes whatever its size, and a small one costs one thread hop.
    """

    def __init__(self, store: LocalBlobStore, key: str, path: Path, descriptor: int) -> None:
        self._store = store
        self.key = key
        self._path = path
        self._descriptor: int | None = descriptor
        # A cancelled caller leaves its thread running: the descriptor is used and closed under this lock only, or a
        # late write could land in whatever file got the same number next.
        self._lock = threading.Lock()
        self._size = 0
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._flushing: asyncio.Future[None] | None = None
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha256 = hashlib.sha256()

    @property
    def size(self) -> int:
        return self._size

    @property
    def path(self) -> str:
        return str(self._path)

    async def write(self, data: bytes) -> None:
        self._pending.append(data)
        self._pending_size += len(data)
        self._size += len(data)
        if self._pending_size >= _FLUSH_BYTES:
            await self._settle_flush()
            self._flushing = asyncio.ensure_future(self._store.in_thread(self._flush_work()))

    async def seal(self) -> Digest:
        await self._settle_flush()
        if self._pending:
            await self._store.in_thread(self._flush_work())
        return Digest(self._size, self._md5.hexdigest(), self._sha256.hexdigest())

    async def publish(self) -> None:
        target = self._store.path_of(self.key)

        def work() -> None:
            with self._lock:
                try:
                    # The order is the guarantee: bytes on disk before a name shows them, the name before the commit.
                    os.fsync(self._open_descriptor())
                    self._path.rename(target)
                    _sync_folder(target.parent)
                finally:
                    self._close()

        await self._store.in_thread(work)

    async def discard(self) -> None:
        self._pending.clear()

        def work() -> None:
            with self._lock:
                self._close()
            self._path.unlink(missing_ok=True)
            self._store.path_of(self.key).unlink(missing_ok=True)

        flushing, self._flushing = self._flushing, None
        with suppress(UponceError):  # what stays behind is the sweeper's
            await self._store.in_thread(work)
        if flushing is not None:
            with suppress(UponceError):
                await flushing

    async def _settle_flush(self) -> None:
        flushing, self._flushing = self._flushing, None
        if flushing is not None:
            await flushing

    def _flush_work(self) -> Callable[[], None]:
        blocks, self._pending, self._pending_size = self._pending, [], 0

        def work() -> None:
            with self._lock:
                for block in blocks:
                    self._md5.update(block)
                    self._sha256.update(block)
                _write_all(self._open_descriptor(), blocks)

        return work

    def _open_descriptor(self) -> int:
        if self._descriptor is None:
            raise FileNotFoundError(errno.ENOENT, "the stage is closed")
        return self._descriptor

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


class LocalBlob:
    def __init__(self, store: LocalBlobStore, descriptor: int, size: int) -> None:
        self._store = store
        self._descriptor: int | None = descriptor
        self.size = size

    async def read(self, offset: int, length: int) -> bytes:
        descriptor = self._descriptor
        assert descriptor is not None
        return await self._store.in_thread(lambda: os.pread(descriptor, length, offset))

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


_SAFE = os.O_NOFOLLOW | os.O_CLOEXEC


def _guarded(work: Callable[[], T]) -> T:
    try:
        return work()
    except FileNotFoundError as error:
        raise StorageUnavailable(
            "The upload paused for so long that its bytes were swept away. Nothing was spent; send it again.",
            detail=str(error),
            retry_after=1,
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(
                "The storage has no space left. Nothing was stored; send the request again later.",
                detail=str(error),
                retry_after=_RETRY_SECONDS,
            ) from error
        raise StorageUnavailable(
            "The storage cannot be used right now. Nothing was stored; send the request again.",
            detail=str(error),
            retry_after=_RETRY_SECONDS,
        ) from error


def _write_all(descriptor: int, blocks: list[bytes]) -> None:
    """`writev` may write less than it was given."""
    left: list[memoryview] = [memoryview(block) for block in blocks]
    while left:
        written = os.writev(descriptor, left[:_MAX_VECTOR])
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if written:
            left[0] = left[0][written:]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
