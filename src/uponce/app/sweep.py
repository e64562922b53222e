"""The garbage collector: forgets grants whose time is over, deletes bytes that belong to nothing.

It deletes and never finishes what somebody else began. A blob is condemned in the database before it is deleted,
and a commit that finds its blob condemned fails; so a server that was paused between making its bytes durable
and committing can never publish a row without bytes.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from uponce.app.owner import check_owner, claim_storage
from uponce.app.ports import StoredBlob
from uponce.app.services import Services
from uponce.core.errors import StorageFull

_BATCH = 100
RESTFUL = 4.0


@dataclass(frozen=True, slots=True)
class Swept:
    """Counts of what was removed; `bytes` belong to the blobs."""

    unfinished: int
    blobs: int
    bytes: int
    grants: int
    series: int = 0


async def sweep(services: Services, *, grace_seconds: float, audit_seconds: int | None, rest: float = 0) -> Swept:
    """Remove old series, and spooled files and orphans older than the grace time, and purge the ledger and
    the audit, which stays if `audit_seconds` is None.

    Safe beside running servers. While it goes through all that is stored it rests, after each batch, for `rest` times
    as long as that took: so a server sweeps and answers uploads as quickly as before. Raise SettingRefused, and delete
    no file, if the storage belongs to another database; the purge comes before, and needs no storage. Raise
    StorageFull if the purge finds no room, after spooled files are removed: that makes room for the next sweep.
    """
    try:
        grants = await services.database.purge(audit_seconds)
    except StorageFull:
        await _claim(services)
        await _sweep_spool(services, grace_seconds)
        raise
    await _claim(services)
    series = await _end_old_series(services)
    unfinished = await _sweep_spool(services, grace_seconds)
    await _sweep_parts(services, grace_seconds)
    blobs = size = 0
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async for batch in _batches(services.blobs.published(), grace_seconds):
        # Nearly all are named. Only for the others everybody has to wait.
        unnamed = await services.database.unnamed([blob.key for blob in batch])
        condemned = set(await _condemn(services, unnamed)) if unnamed else set()
        for blob in batch:
            if blob.key in condemned:
                await services.blobs.delete(blob.key)
                blobs, size = blobs + 1, size + blob.size
        await asyncio.sleep(rest * (loop.time() - begun))
        begun = loop.time()
    services.metrics.swept(blobs, size, grants, services.clock.now())
    return Swept(unfinished, blobs, size, grants, series)


async def _claim(services: Services) -> None:
    with services.ownership.noting():
        await claim_storage(services.database, services.blobs)


async def _sweep_spool(services: Services, grace_seconds: float) -> int:
    return await services.blobs.sweep_spool(grace_seconds, await services.database.series_blobs())


async def _condemn(services: Services, unnamed: Sequence[str]) -> Sequence[str]:
    """Return the keys of the blobs to delete. Raise SettingRefused if another database has the storage by now."""
    with services.ownership.noting():
        await check_owner(services.database, services.blobs)
    return await services.database.condemn(unnamed)


async def _end_old_series(services: Services) -> int:
    ended = 0
    limits = services.limits
    while blob_keys := await services.database.end_old_series(limits.series_seconds, limits.empty_series_seconds):
        # Their commits fail from now on, so the bytes belong to nobody.
        for key in blob_keys:
            await services.blobs.delete(key)
        ended += len(blob_keys)
    return ended


async def _sweep_parts(services: Services, grace_seconds: float) -> None:
    """Delete the parts of series that have ended: no request can record them any more.

    A series exists before its first part. So a series that is missing after the listing has ended.
    """
    shared = services.blobs.shared
    if shared is None:
        return
    found = {part.key async for part in shared.listed() if part.age >= grace_seconds}
    for key in found - await services.database.series_blobs() if found else ():
        await shared.drop(key)


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
