"""Sweep: forget grants whose time is over, and delete bytes that no row names.

A sweep never finishes the work of another request. It condemns a blob in the database before it deletes the blob, and a
commit that finds its blob condemned fails. A server may be paused between making its bytes durable and the commit. When
it wakes, it can never publish a row without bytes.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, replace

from uponce.app.owner import check_owner, claim_storage
from uponce.app.ports import PLACES, StoredBlob
from uponce.app.services import Services
from uponce.core.errors import StorageFull, StorageUnavailable
from uponce.core.first_failure import FirstFailure

_BATCH = 100
RESTFUL = 4.0
_MOST_FAILURES = 20  # of deletions in a purge: one to a bucket that hangs takes UPONCE_STORAGE_SECONDS


@dataclass(frozen=True, slots=True)
class Swept:
    """The number of removed things. `bytes` is the size of the blobs."""

    unfinished: int
    blobs: int
    bytes: int
    grants: int
    series: int = 0


async def sweep(
    services: Services, *, grace_seconds: float, audit_seconds: int | None, dead_seconds: int | None = None
) -> Swept:
    """Purge, then delete orphans, also after a purge that failed. Return what was removed, or raise the first failure.

    A running server repeats each of the two on its own.
    """
    failure = FirstFailure()
    purged = orphans = Swept(0, 0, 0, 0)
    with failure.kept():
        purged = await purge(
            services, grace_seconds=grace_seconds, audit_seconds=audit_seconds, dead_seconds=dead_seconds
        )
    with failure.kept():
        orphans = await sweep_blobs(services, grace_seconds=grace_seconds)
    failure.raise_it()
    return replace(purged, blobs=orphans.blobs, bytes=orphans.bytes)


async def purge(
    services: Services, *, grace_seconds: float, audit_seconds: int | None, dead_seconds: int | None = None
) -> Swept:
    """Purge the ledger, the audit and dead notifications. End old series, and delete old spooled files and parts.

    Return what was removed. Spooled files and parts count as old after `grace_seconds`. The audit stays if
    `audit_seconds` is None, dead notifications if `dead_seconds` is None. A purge is safe beside running servers. Raise
    SettingRefused, and delete no file, if the storage belongs to another database. The ledger comes first, and needs no
    storage. Each step runs, also after another step has failed: on a full disk, the deletion of old spooled files makes
    room for the next purge. Raise the first failure at the end.
    """
    failure = FirstFailure()
    grants = series = unfinished = 0
    with failure.kept():
        grants = await services.database.purge(audit_seconds, dead_seconds)
        services.metrics.purged(grants)
    with failure.kept():
        await _claim(services)
        with failure.kept():
            series = await _end_old_series(services)
        with failure.kept():
            unfinished = await services.blobs.sweep_spool(grace_seconds, await services.database.series_blobs())
        await _sweep_parts(services, grace_seconds)
    failure.raise_it()
    services.metrics.purge_succeeded(services.clock.now())
    return Swept(unfinished, 0, 0, grants, series)


async def sweep_blobs(services: Services, *, grace_seconds: float, rest: float = 0) -> Swept:
    """Delete orphans that are older than `grace_seconds`. Return what was deleted.

    This lists the whole store, which takes hours if the store is large. So the purge does not wait for it. It begins at
    a random place: also if no sweep reaches its end, each orphan has its turn. A place that fails stops no other place,
    and an orphan that cannot be deleted stops no other orphan. The first such failure is raised at the end. It is safe
    beside running servers. After each batch it rests for `rest` times as long as the batch took, so the server answers
    uploads as quickly as before. Raise SettingRefused, and delete no file, if the storage belongs to another database.

    After a fence no orphan is deleted for `grace_seconds`. After a restore the orphans are all uploads since the copy,
    and the lost database may still be found.
    """
    await _claim(services)
    failure, undeleted = FirstFailure(StorageUnavailable), FirstFailure(StorageUnavailable, StorageFull)
    blobs = size = 0
    loop = asyncio.get_running_loop()
    begun = loop.time()
    for listing in services.blobs.listings(PLACES[int(services.ids.hex(8), 16) % len(PLACES)]):
        with failure.kept():
            async for batch in _batches(listing, grace_seconds):
                for blob in await _condemn(services, batch, grace_seconds):
                    with undeleted.kept():  # a hole in a pack may need space, and the next file frees some
                        await services.blobs.delete(blob.key)
                        services.metrics.swept(blob.size)
                        blobs, size = blobs + 1, size + blob.size
                await asyncio.sleep(rest * (loop.time() - begun))
                begun = loop.time()
    failure.raise_it()
    undeleted.raise_it()
    services.metrics.sweep_succeeded(services.clock.now())
    return Swept(0, blobs, size, 0)


async def _claim(services: Services) -> None:
    with services.ownership.noting():
        await claim_storage(services.database, services.blobs)


async def _condemn(services: Services, batch: Sequence[StoredBlob], grace_seconds: float) -> Sequence[StoredBlob]:
    """Return the blobs to delete. Raise SettingRefused if another database owns the storage by now."""
    # Rows name nearly all of them. Condemning the others makes commits wait, so it gets only these.
    unnamed = await services.database.unnamed([blob.key for blob in batch])
    if not unnamed:
        return ()
    with services.ownership.noting():
        await check_owner(services.database, services.blobs)
    condemned = set(await services.database.condemn(unnamed, after_fence=grace_seconds))
    return [blob for blob in batch if blob.key in condemned]


async def _end_old_series(services: Services) -> int:
    ended, failure, limits = 0, FirstFailure(), services.limits
    while blob_keys := await services.database.end_old_series(limits.series_seconds, limits.empty_series_seconds):
        # Their commits fail from now on, so no row will name the bytes.
        await _drop(services, blob_keys, failure)
        ended += len(blob_keys)
    failure.raise_it()
    return ended


async def _sweep_parts(services: Services, grace_seconds: float) -> None:
    """Delete the parts of series that have ended: no request can record them any more.

    A series exists before its first part. So if a listed part has no series after the listing, its series has ended.
    """
    failure = FirstFailure()
    found = {part.key async for part in services.blobs.parts.listed() if part.age >= grace_seconds}
    await _drop(services, found - await services.database.series_blobs() if found else (), failure)
    failure.raise_it()


async def _drop(services: Services, blob_keys: Iterable[str], failure: FirstFailure) -> None:
    """Delete the bytes of series that have ended. A later purge deletes what stays after many failures."""
    for key in blob_keys:
        if failure.count == _MOST_FAILURES:
            return
        with failure.kept():
            await services.blobs.parts.drop(key)


async def _batches(blobs: AsyncIterator[StoredBlob], grace_seconds: float) -> AsyncIterator[Sequence[StoredBlob]]:
    batch: list[StoredBlob] = []
    async for blob in blobs:
        if blob.age >= grace_seconds:
            batch.append(blob)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
