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
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TypeVar
from weakref import WeakSet

from uponce.adapters.blobs.gathering import Disk, Gathering
from uponce.adapters.blobs.pieces import LocalAssembly, LocalPiece, Prefixes, hold, make_empty
from uponce.app.ports import Ids, StoredBlob
from uponce.core.errors import SettingRefused, StorageFull, StorageUnavailable, UponceError
from uponce.core.spans import Span
from uponce.core.values import Digest

T = TypeVar("T")

_KEY = re.compile(r"[0-9a-f]{32}")
_MOST_BUFFERED = 1024 * 1024
_LEAST_BUFFERED = 64 * 1024
_ALL_BUFFERED = 32 * 1024 * 1024
_WORKERS = 8
_MAX_VECTOR = 1024  # IOV_MAX on Linux
_LIST_BATCH = 500
_PRIVATE = 0o700
_RETRY_SECONDS = 5


class LocalBlobStore:
    """Call `open_store` before use and `close` after. `workers` threads do all that touches the disk."""

    def __init__(self, root: Path, *, ids: Ids, workers: int = _WORKERS) -> None:
        self._ids = ids
        self.staging = root / "staging"
        self._blobs = root / "blobs"
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="uponce-disk")
        self._stages: WeakSet[Gathering] = WeakSet()
        self._prefixes = Prefixes()

    def open_store(self) -> None:
        """Make the folders. SettingRefused when staging and blobs are on two file systems: a rename would copy."""
        root = self._blobs.parent
        try:
            _make_folder(root)
            for folder in (self.staging, self._blobs, *self._shards()):
                folder.mkdir(exist_ok=True, mode=_PRIVATE)
            # All shards exist and are durable from the start, so that no upload depends on another one's fsync.
            for folder in (self._blobs, root, root.parent):
                _sync_folder(folder)
            devices = {folder.stat().st_dev for folder in (self.staging, self._blobs, *self._shards())}
        except OSError as error:
            raise SettingRefused(
                f"UPONCE_STORAGE: {root} cannot be used: {error}. Choose a folder that the server may write."
            ) from error
        if len(devices) > 1:
            raise SettingRefused(
                f"UPONCE_STORAGE: all of {root} must be on one file system. Mount the disk at {root}, not inside it."
            )

    def _shards(self) -> Iterator[Path]:
        return (self._blobs / f"{number:02x}" for number in range(256))

    def close(self) -> None:
        self._threads.shutdown()

    async def stage(self) -> "LocalStage":
        """Touches nothing yet: the first flush makes the file."""
        key = self._ids.hex(32)
        stage = LocalStage(self, key, self.staging / key)
        self._stages.add(stage)
        return stage

    async def begin(self) -> str:
        key = self._ids.hex(32)
        await self.in_thread(lambda: make_empty(self, key))
        return key

    async def piece(self, key: str, span: Span) -> LocalPiece:
        held = await self.in_thread(lambda: hold(self, key, span))
        piece = LocalPiece(self, key, span, held, self._prefixes)
        self._stages.add(piece)
        return piece

    async def assembly(self, key: str) -> LocalAssembly:
        held = await self.in_thread(lambda: hold(self, key, None))
        return LocalAssembly(self, key, held, self._prefixes)

    @property
    def buffer_bytes(self) -> int:
        """How much one upload may gather before it is flushed: less when many run, so that slow ones stay cheap."""
        return max(_LEAST_BUFFERED, min(_MOST_BUFFERED, _ALL_BUFFERED // (len(self._stages) or 1)))

    async def open(self, key: str) -> "LocalBlob | None":
        return await self.in_thread(lambda: self._open(key))

    def _open(self, key: str) -> "LocalBlob | None":
        try:
            descriptor = os.open(self.path_of(key), os.O_RDONLY | _SAFE)
        except FileNotFoundError:
            return None
        return LocalBlob(self, descriptor, os.fstat(descriptor).st_size)

    async def delete(self, key: str) -> None:
        def unlink() -> None:
            for path in (self.path_of(key), self.staging / key):
                path.unlink(missing_ok=True)

        self._prefixes.drop(key)
        await self.in_thread(unlink)

    def published(self, prefix: str = "") -> AsyncIterator[StoredBlob]:
        folders = (folder for folder in self._shards() if folder.name.startswith(prefix[:2]))
        # In the folder of another shard, a key could neither be opened nor deleted.
        found = (blob for folder in folders for blob in _blobs_in(folder) if blob.key.startswith(folder.name))
        return self._in_batches(blob for blob in found if blob.key.startswith(prefix))

    def staged(self) -> AsyncIterator[StoredBlob]:
        return self._in_batches(_blobs_in(self.staging))

    async def _in_batches(self, blobs: Iterator[StoredBlob]) -> AsyncIterator[StoredBlob]:
        while batch := await self.in_thread(lambda: list(islice(blobs, _LIST_BATCH))):
            for blob in batch:
                yield blob

    async def digest(self, key: str) -> Digest | None:
        return await self.in_thread(lambda: self._digest(key))

    def _digest(self, key: str) -> Digest | None:
        try:
            descriptor = os.open(self.path_of(key), os.O_RDONLY | _SAFE)
        except FileNotFoundError:
            return None
        md5, sha256, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            while block := file.read(_MOST_BUFFERED):
                md5.update(block)
                sha256.update(block)
                size += len(block)
        return Digest(size, md5.hexdigest(), sha256.hexdigest())

    async def sweep_stages(self, older_than: float, spare: Collection[str] = ()) -> int:
        def sweep() -> int:
            old = [blob.key for blob in _blobs_in(self.staging) if blob.age >= older_than and blob.key not in spare]
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

    def path_of(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise StorageUnavailable("The stored bytes cannot be addressed.", detail=f"bad blob key {key!r}")
        return self._blobs / key[:2] / key

    def sync_folder(self, folder: Path) -> None:
        _sync_folder(folder)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run blocking work; what the operating system refuses becomes one of our errors."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, _guarded, work)


class LocalStage(Gathering):
    """One file in the staging folder."""

    def __init__(self, store: LocalBlobStore, key: str, path: Path) -> None:
        super().__init__(store)
        self.key = key
        self._path = path
        self._descriptor: int | None = None
        self._ended = False
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha256 = hashlib.sha256()

    @property
    def path(self) -> str:
        return str(self._path)

    async def blocks(self) -> AsyncIterator[bytes]:
        descriptor = await self._store.in_thread(lambda: os.open(self._path, os.O_RDONLY | _SAFE))
        blob = LocalBlob(self._store, descriptor, self._size)
        try:
            for offset in range(0, self._size, _MOST_BUFFERED):
                yield await blob.read(offset, _MOST_BUFFERED)
        finally:
            blob.close()

    async def seal(self) -> Digest:
        await self._settle_flush()
        self._start_flush()  # also of nothing: the file of an empty blob has to exist
        await self._settle_flush()
        return Digest(self._size, self._md5.hexdigest(), self._sha256.hexdigest())

    async def publish(self) -> None:
        await self._settle_flush()
        await self._store.in_thread(self._publish)

    def _publish(self) -> None:
        target = self._store.path_of(self.key)
        with self._lock:
            try:
                # The order is the guarantee: bytes on disk before a name shows them, the name before the commit.
                os.fsync(self._writable())
                _rename(self._path, target)
                _sync_folder(target.parent)
            finally:
                # Also after a failure: the kernel reports a failed fsync once, so a second one would prove nothing.
                self._close()

    async def discard(self) -> None:
        self._pending.clear()
        # The caller's cancellation must not take this off the threads' queue, and the descriptor with it.
        ending = asyncio.ensure_future(self._store.in_thread(self._discard))
        with suppress(UponceError):  # what stays behind is the sweeper's
            await asyncio.shield(ending)
        with suppress(UponceError):
            await self._settle_flush()

    def _discard(self) -> None:
        with self._lock:
            self._close()
            self._path.unlink(missing_ok=True)
            self._store.path_of(self.key).unlink(missing_ok=True)

    def _flush(self, blocks: list[bytes]) -> None:
        with self._lock:
            descriptor = self._writable()
            for block in blocks:
                self._md5.update(block)
                self._sha256.update(block)
            _write_all(descriptor, blocks)

    def _writable(self) -> int:
        if self._ended:
            raise OSError(errno.EBADF, "the stage has ended")
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | _SAFE, 0o600)
        return self._descriptor

    def _close(self) -> None:
        self._ended = True
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


class LocalBlob:
    """Closes itself when the last reference goes: a cancelled `open` has nobody who could close it."""

    def __init__(self, store: Disk, descriptor: int, size: int) -> None:
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

    def __del__(self) -> None:
        self.close()


_SAFE = os.O_NOFOLLOW | os.O_CLOEXEC


def _guarded(work: Callable[[], T]) -> T:
    try:
        return work()
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


def _rename(staged: Path, target: Path) -> None:
    try:
        staged.rename(target)
    except FileNotFoundError as error:
        raise StorageUnavailable(
            "The upload paused for so long that its bytes were swept away. Nothing was spent; send it again.",
            detail=str(error),
            retry_after=1,
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


def _files(folder: Path) -> Iterator[tuple[os.DirEntry[str], os.stat_result]]:
    """The files that are ours by their name; what else lies there is none of the sweeper's business."""
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                if _KEY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    yield entry, entry.stat(follow_symlinks=False)


def _blobs_in(folder: Path) -> Iterator[StoredBlob]:
    now = time.time()
    for entry, facts in _files(folder):
        yield StoredBlob(entry.name, facts.st_size, now - facts.st_mtime)


def _make_folder(folder: Path) -> None:
    """With the parents that are missing, each durable in its own parent."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True, mode=_PRIVATE)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
