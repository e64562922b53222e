"""Copy the blobs that a catalog names from one store to another, each compared with its SHA-256.

A copy may be repeated: it skips blobs that are already there. Servers use the source while the copy runs, so a blob may
be deleted before its copy ends. Then its asset names another blob, or is gone too.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import islice
from typing import Protocol

from uponce.app.ports import PLACES, BlobStore
from uponce.core.errors import StorageUnavailable
from uponce.core.formats import stored_type
from uponce.core.values import Asset, Digest

_AT_ONCE = 8


class Catalog(Protocol):
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


class _Transfer(Enum):
    COPIED = auto()
    GONE = auto()
    DAMAGED = auto()


Renew = Callable[[str], Awaitable[Asset | None]]


async def copy_media(
    catalog: Catalog,
    source: BlobStore,
    target: BlobStore,
    *,
    renew: Renew | None = None,
    deep: bool = False,
    progress: Callable[[Copying], None] = lambda copying: None,
) -> Copying:
    """Copy every blob that the catalog names. Return what was copied, what was there, and what is lost.

    No other process may write to the target. `renew` returns the present row of an asset whose blob is gone; by default
    the catalog does. `deep` reads the blobs that are already there again.
    """
    copier = _Copier(catalog, source, target, renew or catalog.find_commit, progress)
    for place in PLACES:
        await copier.copy_place(place, deep)
    return copier.done


async def forget_unnamed(catalog: Catalog, store: BlobStore) -> int:
    """Delete the blobs that the catalog does not name. Return their number. No other process may write to the store."""
    dropped = 0
    async for key in unnamed(catalog, store):
        await store.delete(key)
        dropped += 1
    return dropped


async def unnamed(catalog: Catalog, store: BlobStore) -> AsyncIterator[str]:
    """Yield the keys of published blobs that the catalog does not name. The reader may delete each."""
    for place in PLACES:
        named = await catalog.digests(place)
        for key in [blob.key async for blob in store.published(place) if blob.key not in named]:
            yield key


class _Copier:
    def __init__(
        self, catalog: Catalog, source: BlobStore, target: BlobStore, renew: Renew, progress: Callable[[Copying], None]
    ) -> None:
        self._catalog = catalog
        self._source = source
        self._target = target
        self._renew = renew
        self._progress = progress
        self._early: set[str] = set()  # successors whose place comes later
        self.done = Copying()

    async def copy_place(self, place: str, deep: bool) -> None:
        named = await self._catalog.digests(place)
        sizes = {blob.key: blob.size async for blob in self._target.published(place)}
        present = {key for key in named.keys() & sizes.keys() if sizes[key] == named[key].size}
        if deep:
            present = {key for key in present if await self._target.digest(key) == named[key]}
        self.done.present += len(present - self._early)
        left = iter(sorted(named.keys() - present))
        while batch := list(islice(left, _AT_ONCE)):
            await asyncio.gather(*map(self._copy, batch))
            self._progress(self.done)
        self.done.places += 1
        self._progress(self.done)

    async def _copy(self, key: str) -> None:
        asset = await self._catalog.find_commit(key)
        while asset is not None:
            transfer = await self._transfer(asset)
            if transfer is _Transfer.COPIED:
                return
            successor = await self._renew(asset.blob_key)
            if successor is not None and successor.blob_key == asset.blob_key:
                self._lose(
                    asset, "its bytes are gone" if transfer is _Transfer.GONE else "its bytes are not those uploaded"
                )
                return
            asset = successor
            self._early.update(() if asset is None else [asset.blob_key])

    async def _transfer(self, asset: Asset) -> _Transfer:
        blob = await self._source.open(asset.blob_key)
        if blob is None:
            return _Transfer.GONE
        spooled = await self._target.receive(asset.blob_key)
        try:
            for offset in range(0, blob.size, blob.block_bytes):
                await spooled.write(await blob.read(offset, blob.block_bytes))
            if await spooled.seal() != asset.digest:
                await spooled.discard()
                return _Transfer.DAMAGED
            await spooled.publish(stored_type(asset.facts))
        except BaseException as error:
            await spooled.discard()
            if isinstance(error, StorageUnavailable) and await self._source.open(asset.blob_key) is None:
                return _Transfer.GONE  # the object was deleted while it was read
            raise
        finally:
            blob.close()
        self.done.copied += 1
        self.done.bytes += asset.digest.size
        return _Transfer.COPIED

    def _lose(self, asset: Asset, why: str) -> None:
        self.done.lost[str(asset.name)] = f"blob {asset.blob_key}: {why}"
