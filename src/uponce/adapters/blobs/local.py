"""The BlobStore port on a local disk.

    <root>/staging/<key>         bytes that are arriving
    <root>/blobs/<kk>/<key>      published, immutable

Keys are 32 random hex digits; nothing that a client sends ever becomes part of a path.
"""

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from uponce.adapters.blobs.files import (
    PRIVATE,
    SAFE,
    OpenFile,
    blobs_in,
    blocks_of,
    checked,
    guarded,
    make_folder,
    swept,
    write_all,
)
from uponce.adapters.blobs.hashes import digest_of
from uponce.adapters.blobs.staging import WORKERS, StagingStore, in_batches
from uponce.adapters.system import open_cached, sync_file, sync_folder
from uponce.app.ports import Body, Ids, StoredBlob
from uponce.app.ports.blobs import Data
from uponce.core.errors import SettingRefused
from uponce.core.values import Digest


class LocalBlobStore(StagingStore):
    """Call `open_store` before use and `close` after."""

    def __init__(self, root: Path, *, ids: Ids, workers: int = WORKERS) -> None:
        super().__init__(root / "staging", ids=ids, workers=workers)
        self._blobs = root / "blobs"
        self._prefix = os.fsencode(self._blobs) + b"/"

    def open_store(self) -> None:
        """Make the folders. SettingRefused when staging and blobs are on two file systems: a rename would copy."""
        root = self._blobs.parent
        try:
            make_folder(root)
            for folder in (self.staging, self._blobs, *self._shards()):
                folder.mkdir(exist_ok=True, mode=PRIVATE)
            # All shards exist and are durable from the start, so that no upload depends on another one's fsync.
            for folder in (self._blobs, root, root.parent):
                sync_folder(folder)
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

    def open_now(self, key: str) -> OpenFile | None:
        descriptor = open_cached(self._prefix + _place(key).encode(), os.O_RDONLY | SAFE)
        return None if descriptor is None else OpenFile(self, descriptor, os.fstat(descriptor).st_size)

    async def open(self, key: str) -> OpenFile | None:
        return await self.in_thread(lambda: self._open(key))

    def _open(self, key: str) -> OpenFile | None:
        try:
            descriptor = os.open(self.path_of(key), os.O_RDONLY | SAFE)
        except FileNotFoundError:
            return None
        blob = OpenFile(self, descriptor, os.fstat(descriptor).st_size)
        if blob.size <= blob.block_bytes:  # in the same trip to the thread
            blob.whole = os.pread(descriptor, blob.size, 0)
        return blob

    def published(self, prefix: str = "") -> AsyncIterator[StoredBlob]:
        folders = (folder for folder in self._shards() if folder.name.startswith(prefix[:2]))
        # In the folder of another shard, a key could neither be opened nor deleted.
        found = (blob for folder in folders for blob in blobs_in(folder) if blob.key.startswith(folder.name))
        return in_batches(self.in_thread, (blob for blob in found if blob.key.startswith(prefix)))

    async def digest(self, key: str) -> Digest | None:
        return await self.in_thread(lambda: self._digest(key))

    def _digest(self, key: str) -> Digest | None:
        try:
            descriptor = os.open(self.path_of(key), os.O_RDONLY | SAFE)
        except FileNotFoundError:
            return None
        try:
            return digest_of(blocks_of(descriptor, 0, os.fstat(descriptor).st_size))
        finally:
            os.close(descriptor)

    def path_of(self, key: str) -> Path:
        return self._blobs / _place(key)

    def put(self, key: str, path: Path, descriptor: int, media_type: str) -> None:
        target = self.path_of(key)
        # The order is the guarantee: bytes on disk before a name shows them, the name before the commit.
        sync_file(descriptor)
        try:
            path.rename(target)
        except FileNotFoundError as error:
            raise swept(error) from error
        sync_folder(target.parent)

    def put_group(self, bodies: Sequence[Body]) -> Sequence[str]:
        return guarded(lambda: self._put_files([data for data, _, _ in bodies]))

    def _put_files(self, bodies: Sequence[Data]) -> list[str]:
        shard = self._ids.hex(2)  # one for the group, so that one fsync makes all names durable
        keys = [shard + self._ids.hex(30) for _ in bodies]
        try:
            for key, data in zip(keys, bodies, strict=True):
                _write_new(self.path_of(key), data)
            sync_folder(self._blobs / shard)
        except OSError:
            for key in keys:
                with suppress(OSError):  # the sweeper finds what stays behind
                    self.path_of(key).unlink(missing_ok=True)
            raise
        return keys

    async def withdraw(self, key: str) -> None:
        await self.in_thread(lambda: self.path_of(key).unlink(missing_ok=True))

    async def take_back(self, key: str) -> None:
        def move() -> None:
            if not (self.staging / key).exists():
                self.path_of(key).rename(self.staging / key)

        await self.in_thread(move)

    def open_unfinished(self, key: str) -> int | None:
        # In this order, since completing renames the one to the other.
        staged = super().open_unfinished(key)
        if staged is not None:
            return staged
        with suppress(FileNotFoundError):
            return os.open(self.path_of(key), os.O_RDWR | SAFE)
        return None


class InternalLocation:
    """The FrontServer port: nginx, to which `prefix` is the folder `blobs`."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def location_of(self, key: str) -> str:
        return self._prefix + _place(key)


def _write_new(path: Path, data: Data) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | SAFE, 0o600)
    try:
        write_all(descriptor, [data])
        sync_file(descriptor)
    finally:
        os.close(descriptor)


def _place(key: str) -> str:
    return f"{checked(key)[:2]}/{key}"
