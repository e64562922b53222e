"""Copy the blobs that a catalog names from one store to another, each compared with its SHA-256.

A copy may be repeated: it skips blobs that are already there. Servers use the source while the copy runs, so a blob may
be deleted before its copy ends. Then its asset names another blob, or is gone too.
"""

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Protocol, TypeVar

from uponce.app.ports import PLACES, BlobStore, OpenBlob
from uponce.core.errors import StorageUnavailable
from uponce.core.first_failure import FirstFailure
from uponce.core.formats import stored_type
from uponce.core.values import Asset, Digest

T = TypeVar("T")

_AT_ONCE = 8
_PROBES, _LISTED = 16, 1000  # so many blobs come with one request
_PROOF_BYTES = 2 * 1024 * 1024  # shorter objects may come from the machines that list
_GONE = "its bytes are gone"
_UNREADABLE = "its bytes cannot be read: {}"
_EUCLEAN = 117  # Linux: the file system is damaged at this file
# Other files of the disk may be readable.
_OF_ONE_FILE = (errno.EIO, errno.EACCES, errno.EISDIR, errno.ELOOP, errno.EBADMSG, _EUCLEAN)


class CopiedCatalog(Protocol):
    """The methods of a database that a copy needs. They are described at the Database port."""

    async def digests(self, prefix: str) -> Mapping[str, Digest]: ...

    async def find_commit(self, blob_key: str) -> Asset | None: ...


@dataclass(slots=True)
class Copying:
    """The progress of a copy: finished `places` of PLACES, blobs that were already `present`, and what was copied.

    `lost` names the assets whose bytes cannot be read, and the reason.
    """

    places: int = 0
    present: int = 0
    copied: int = 0
    bytes: int = 0
    lost: dict[str, str] = field(default_factory=dict)


class _Lost(Exception):
    """The source does not have the bytes of one blob. The text gives the reason."""


Renew = Callable[[str], Awaitable[Asset | None]]


async def copy_media(
    catalog: CopiedCatalog,
    source: BlobStore,
    target: BlobStore,
    *,
    renew: Renew | None = None,
    deep: bool = False,
    progress: Callable[[Copying], None] = lambda copying: None,
) -> Copying:
    """Copy every blob that the catalog names. Return what was copied, what was there, and what is lost.

    No other process may write to the target. `renew` returns the present row of an asset whose blob is gone; by default
    the catalog does. `deep` reads again the blobs that are there already. A blob that the source cannot read is lost,
    and the rest is copied. Raise StorageUnavailable, which names the asset, if a whole store fails. That of a bucket
    shows if none of several blobs can be read.
    """
    copier = _Copier(catalog, source, target, renew or catalog.find_commit, progress)
    for place in PLACES:
        await copier.copy_place(place, deep)
    return copier.done


async def forget_unnamed(store: BlobStore, *catalogs: CopiedCatalog) -> int:
    """Delete the blobs that no catalog names, and return their number. No other process may write to the store.

    A blob that cannot be deleted stops no other one. Raise the first failure at the end.
    """
    dropped, failure = 0, FirstFailure()
    async for key in unnamed(store, *catalogs):
        with failure.kept():
            await store.delete(key)
            dropped += 1
    failure.raise_it()
    return dropped


async def unnamed(store: BlobStore, *catalogs: CopiedCatalog) -> AsyncIterator[str]:
    """Yield the keys of published blobs that none of the catalogs names. The reader may delete each."""
    for place in PLACES:
        named = {key for catalog in catalogs for key in await catalog.digests(place)}
        for key in [blob.key async for blob in store.published(place) if blob.key not in named]:
            yield key


class _Copier:
    def __init__(
        self,
        catalog: CopiedCatalog,
        source: BlobStore,
        target: BlobStore,
        renew: Renew,
        progress: Callable[[Copying], None],
    ) -> None:
        self._catalog = catalog
        self._source = source
        self._target = target
        self._renew = renew
        self._progress = progress
        self._early: set[str] = set()  # successors whose place comes later
        self._readable: tuple[int, str] = (0, "")  # size and key of the largest blob that the source has given
        self.done = Copying()

    async def copy_place(self, place: str, deep: bool) -> None:
        named = await self._catalog.digests(place)
        sizes = {blob.key: blob.size async for blob in self._target.published(place)}
        present = {key for key in named.keys() & sizes.keys() if sizes[key] == named[key].size}
        if deep:
            present = {key for key in present if await self._is_whole(key, named[key])}
        self.done.present += len(present - self._early)
        left = iter(sorted(named.keys() - present))
        while batch := list(islice(left, _AT_ONCE)):
            # All end before the first failure is raised: the caller may delete blobs of the target then.
            for outcome in await asyncio.gather(*map(self._copy, batch), return_exceptions=True):
                if outcome is not None:
                    raise outcome
            self._progress(self.done)
        self.done.places += 1
        self._progress(self.done)

    async def _is_whole(self, key: str, digest: Digest) -> bool:
        try:
            return await self._target.digest(key) == digest
        except StorageUnavailable:  # a new copy replaces this one
            return False

    async def _copy(self, key: str) -> None:
        asset = await self._catalog.find_commit(key)
        while asset is not None:
            why = await self._transfer(asset)
            if why is None:
                return
            successor = await self._renew(asset.blob_key)
            if successor is not None and successor.blob_key == asset.blob_key:
                self._lose(asset, why)
                return
            asset = successor
            self._early.update(() if asset is None else [asset.blob_key])

    async def _transfer(self, asset: Asset) -> str | None:
        """Copy one blob. Return None, or why the source does not have its bytes."""
        try:
            blob = await self._of_source(asset, lambda: self._source.open(asset.blob_key))
            if blob is None:
                return _GONE
            with closing(blob):
                return await self._write(asset, blob)
        except _Lost as error:
            return str(error)
        except StorageUnavailable as error:
            detail = f"{asset.name}, blob {asset.blob_key}: {error.for_operator}"
            raise StorageUnavailable(error.message, detail=detail) from error

    async def _write(self, asset: Asset, blob: OpenBlob) -> str | None:
        spooled = await self._target.receive(asset.blob_key)
        try:
            for offset in range(0, blob.size, blob.block_bytes):
                await spooled.write(await self._of_source(asset, partial(blob.read, offset, blob.block_bytes)))
            if await spooled.seal() != asset.digest:
                await spooled.discard()
                return "its bytes are not those uploaded"
            await spooled.publish(stored_type(asset.facts))
        except BaseException:
            await spooled.discard()
            raise
        self._readable = max(self._readable, (asset.digest.size, asset.blob_key))
        self.done.copied += 1
        self.done.bytes += asset.digest.size
        return None

    async def _of_source(self, asset: Asset, read: Callable[[], Awaitable[T]]) -> T:
        """Return what the source reads. Raise _Lost if this blob alone fails."""
        try:
            return await read()
        except StorageUnavailable as error:
            if self._source.is_remote:
                return await self._again(asset, read)
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in _OF_ONE_FILE:
                await self._find_source()
                raise _Lost(_UNREADABLE.format(error.for_operator)) from error
            if await self._source.open(asset.blob_key) is None:
                raise _Lost(_GONE) from error  # a file that is deleted under its reader
            raise

    async def _again(self, asset: Asset, read: Callable[[], Awaitable[T]]) -> T:
        """Return what a second try reads from a bucket. Raise _Lost if only this blob fails.

        The failure does not show which it is. Lists and short objects may come from other machines than blobs, so only
        another blob shows that the bucket gives blobs. The second try comes after it: failures of a moment have passed.
        """
        gives_others = await self._gives_others(asset)
        try:
            return await read()
        except StorageUnavailable as error:
            with suppress(StorageUnavailable):
                if await self._source.open(asset.blob_key) is None:
                    raise _Lost(_GONE) from error  # an object that is deleted under its reader
            if not gives_others:
                raise
            raise _Lost(_UNREADABLE.format(error.for_operator)) from error

    async def _gives_others(self, failed: Asset) -> bool:
        """Return whether the source gives bytes of another blob.

        One that is as large as the failed one, or as a block, decides. Without such a blob, shorter ones decide.
        """
        listed = [self._readable]
        async for stored in self._source.published():
            listed.append((stored.size, stored.key))
            if len(listed) > _LISTED:
                break
        others = {each for each in listed if each[0] and each[1] != failed.blob_key}
        large = {each for each in others if each[0] >= min(failed.digest.size, _PROOF_BYTES)}
        in_turn = sorted(large or others, key=lambda each: (each == self._readable, each), reverse=True)
        for size, key in in_turn[:_PROBES]:
            if await self._gives(key):
                self._readable = max(self._readable, (size, key))
                return True
        return False

    async def _gives(self, key: str) -> bool:
        with suppress(StorageUnavailable):
            blob = await self._source.open(key)
            if blob is not None:
                with closing(blob):
                    await blob.read(0, min(blob.size, blob.block_bytes))
                return True
        return False

    async def _find_source(self) -> None:
        """Raise StorageUnavailable if the whole source is away."""
        async for _ in self._source.published():
            break

    def _lose(self, asset: Asset, why: str) -> None:
        self.done.lost[str(asset.name)] = f"blob {asset.blob_key}: {why}"
