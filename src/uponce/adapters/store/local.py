"""Blobs on a local disk.

    <root>/spool/<key>         bytes that are arriving, see spool/
    <root>/blobs/<kk>/<key>      published, immutable
    <root>/packs/<pack>          many small blobs, see packs.py
    <root>/owner                 the owner of the storage, see app/owner.py

Keys are 32 random hex digits, or for a blob in a pack `p` and 31. Nothing that a client sends ever becomes part of a
path. A copy of a blob from a pack, in a backup or another store, is a file under the same key.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import closing, suppress
from itertools import chain
from pathlib import Path
from typing import TypeVar

from uponce.adapters import files
from uponce.adapters.spool.disk import Disk
from uponce.adapters.spool.hashes import digest_of
from uponce.adapters.spool.parts import FileParts, Prefixes
from uponce.adapters.store.blobs import Blobs, in_batches
from uponce.adapters.store.packs import Packs
from uponce.adapters.system import open_cached, sync_file, sync_folder
from uponce.app.ports import PLACES, Ids, LateGroup, LocationOf, Parts, PutGroup, StoredBlob
from uponce.app.ports.blobs import Data
from uponce.core.errors import SettingRefused, StorageFull, StorageUnavailable
from uponce.core.values import Digest

T = TypeVar("T")

PACK_BYTES = 256 * 1024


class LocalBlobs(Blobs):
    """Blobs in a folder. Those of at most `pack_bytes` go into packs, if the file system can have packs."""

    is_remote = False

    def __init__(self, root: Path, *, ids: Ids, disk: Disk | None = None, pack_bytes: int = PACK_BYTES) -> None:
        super().__init__(root / "spool", disk or Disk(), ids)
        self._prefixes = Prefixes()
        self.parts: Parts = FileParts(self.folder, self.disk, self, ids, self._prefixes)
        self._blobs = root / "blobs"
        self._prefix = os.fsencode(self._blobs) + b"/"
        self._packs = Packs(root / "packs", ids, pack_bytes, self._put_files)
        self._owner = root / "owner"
        self._pack_bytes = pack_bytes

    @property
    def put_group(self) -> PutGroup:
        return self._packs.put_group

    @property
    def late_group(self) -> LateGroup:
        return LateGroup(self._packs.write_group, self._packs.seal, self._packs.abandon)

    def open_store(self) -> None:
        root = self._blobs.parent
        try:
            files.make_folder(root)
            for folder in (self.folder, root / "packs", self._blobs, *self._shards()):
                files.make_one_folder(folder)
            # All shards exist and are durable from the start, so that no upload depends on another one's fsync.
            for folder in (self._blobs, root, root.parent):
                sync_folder(folder)
            devices = {folder.stat().st_dev for folder in (self.folder, self._blobs, *self._shards())}
        except OSError as error:
            raise SettingRefused(
                f"UPONCE_STORAGE: {root} cannot be used: {error}. Choose a folder that the server may write."
            ) from error
        if len(devices) > 1:  # a rename would copy
            raise SettingRefused(
                f"UPONCE_STORAGE: all of {root} must be on one file system. Mount the disk at {root}, not inside it."
            )

    def describe(self) -> str:
        if not self._pack_bytes:
            return "each blob is a file, by UPONCE_PACK_BYTES=0"
        try:
            if not files.guarded(self._packs.holes_free_space):
                return "each blob is a file: this file system cannot free a part of a file, as packs need"
        except StorageFull:
            return "no space is left to try whether packs are possible"
        return f"blobs of at most {self._pack_bytes} bytes go into packs, each larger blob is a file"

    def _shards(self, prefix: str = "") -> Iterator[Path]:
        """Return the folders of all blobs whose keys begin so. A sweep asks once for each of 512 places."""
        start = files.shard_of(prefix)
        return (self._blobs / place for place in PLACES if place.startswith(start))

    def close(self) -> None:
        self._packs.close()
        super().close()

    def open_now(self, key: str) -> files.OpenFile | None:
        if files.is_packed(key):
            try:
                if (blob := self._packed(key, files.NOWAIT)) is not None:
                    return blob
            except OSError:  # the answer needs a disk
                return None
        descriptor = open_cached(self._prefix + _place(key).encode(), os.O_RDONLY | files.SAFE)
        if descriptor is None:
            return None
        return files.OpenFile(self.disk.read, descriptor, os.fstat(descriptor).st_size)

    async def open(self, key: str) -> files.OpenFile | None:
        return await self.disk.read(lambda: self._open(key))

    def _open(self, key: str) -> files.OpenFile | None:
        blob = self._found(files.checked(key))
        if blob is not None:
            try:
                blob.take_whole()  # in the same trip to the thread
            except StorageUnavailable:
                return None  # deleted in between
        return blob

    def _found(self, key: str) -> files.OpenFile | None:
        if files.is_packed(key) and (packed := self._packed(key)) is not None:
            return packed
        try:
            descriptor = os.open(self.path_of(key), os.O_RDONLY | files.SAFE)
        except FileNotFoundError:
            return None
        return files.OpenFile(self.disk.read, descriptor, os.fstat(descriptor).st_size)

    def _packed(self, key: str, flags: int = 0) -> files.OpenFile | None:
        found = self._packs.find(files.checked(key), flags)
        return found and files.OpenFile(self.disk.read, found[0], found[1].size, found[1].start, found[1].header)

    def published(self, prefix: str = "") -> AsyncIterator[StoredBlob]:
        return self._listed(prefix, drop_empty=False)

    def _listed(self, prefix: str, *, drop_empty: bool) -> AsyncIterator[StoredBlob]:
        records = self._packs.records(prefix, drop_empty=drop_empty)
        return in_batches(self.disk.in_thread, chain(self._files(prefix), records))

    def listings(self, first: str) -> Iterator[AsyncIterator[StoredBlob]]:
        start = PLACES.index(first)
        return (self._listed(place, drop_empty=True) for place in PLACES[start:] + PLACES[:start])

    def _files(self, prefix: str) -> Iterator[StoredBlob]:
        for folder in self._shards(prefix):
            # In the folder of another shard, a key could neither be opened nor deleted.
            yield from (
                b for b in files.blobs_in(folder) if files.shard_of(b.key) == folder.name and b.key.startswith(prefix)
            )

    async def digest(self, key: str) -> Digest | None:
        return await self.disk.in_thread(lambda: self._digest(key))

    def _digest(self, key: str) -> Digest | None:
        blob = self._found(files.checked(key))
        if blob is None:
            return None
        with closing(blob):
            return digest_of(blob.blocks())

    async def run(self, work: Callable[[], T], size: int) -> T:
        return await self.disk.sync(work, size)

    def path_of(self, key: str) -> Path:
        return self._blobs / _place(key)

    def put(self, key: str, path: Path, descriptor: int, media_type: str) -> None:
        target = self.path_of(key)
        # The order is the guarantee: bytes on disk before a name shows them, the name before the commit.
        sync_file(descriptor)
        try:
            path.rename(target)  # does nothing if both are names of one file, after a `take_back`
        except FileNotFoundError as error:
            raise files.swept(error) from error
        sync_folder(target.parent)
        if files.is_packed(key):  # a copy: it replaces a damaged blob, and a pack is asked before a file
            self._packs.delete(key)

    def _put_files(self, bodies: Sequence[Data]) -> list[str]:
        shard = self._ids.hex(2)  # one for the group, so that one fsync makes all names durable
        keys = [shard + self._ids.hex(30) for _ in bodies]
        try:
            for key, data in zip(keys, bodies, strict=True):
                files.write_new(self.path_of(key), [data])
            sync_folder(self._blobs / shard)
        except OSError:
            for key in keys:
                with suppress(OSError):  # the sweeper deletes what is left
                    self.path_of(key).unlink(missing_ok=True)
            raise
        return keys

    async def delete(self, key: str) -> None:
        self._prefixes.drop(key)
        await super().delete(key)

    async def withdraw(self, key: str) -> None:
        def unlink() -> None:
            self.path_of(key).unlink(missing_ok=True)
            if files.is_packed(key):
                self._packs.delete(key)

        await self.disk.in_thread(unlink)

    async def owner(self) -> str | None:
        return await self.disk.in_thread(
            lambda: self._owner.read_text(errors="replace") if files.exists(self._owner) else None
        )

    async def set_owner(self, owner: str, *, replace: bool = False) -> None:
        give_name = os.replace if replace else files.link
        await self.disk.in_thread(lambda: files.write_whole(self._owner, [owner.encode()], give_name))

    async def take_back(self, key: str, path: Path) -> None:
        def link() -> None:
            if not files.exists(path):  # the blob keeps its name: a commit whose outcome is unknown may name it
                files.link(self.path_of(key), path)  # or moves, and the next try moves it back

        await self.disk.in_thread(link)

    def open_unfinished(self, key: str) -> int | None:
        with suppress(FileNotFoundError):
            return os.open(self.path_of(key), os.O_RDWR | files.SAFE)
        return None

    def location_of(self, prefix: str) -> LocationOf:
        return lambda key: None if files.is_packed(key) else prefix + _place(key)


def _place(key: str) -> str:
    return f"{files.shard_of(files.checked(key))}/{key}"
