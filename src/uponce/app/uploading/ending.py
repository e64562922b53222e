"""End a series: one that is empty or slow, or the one that makes room for a new one."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from functools import partial

from uponce.app.ports import Parts
from uponce.app.services import Services
from uponce.app.uploading.pipeline import delete_unneeded
from uponce.core import errors
from uponce.core.series import Series, expires_at, is_slow

_MOST_COMPLETE = 100  # as many begin at a time, each in the place of another one


async def end_if_slow(services: Services, series: Series) -> bool:
    """End a series that is slow, or whose time is over. Return whether it has ended.

    A young series stays while a request sends bytes of it. A series without a recorded byte ends at any rate if no
    request sends bytes of it: what arrived before is lost, since its server died.

    A complete series ends if no request completes it: the last try failed, or died, and its client begins again. If it
    is shared, another server may be completing it, so it stays unless the file goes to an upstream.
    """
    now, limits = services.clock.now(), services.limits
    if series.complete:
        if series.shared and not await _is_passed_on(services, series):
            return False
        return await end_unless_held(services, series)
    if now <= expires_at(series, limits) and not is_slow(series, now, limits):
        # Other servers hold bytes of a shared series without a lock that shows here.
        is_lost = not series.spans and not series.shared
        return is_lost and await end_unless_held(services, series, if_empty=True)
    if now - series.created_at <= limits.rate_seconds:
        return await end_unless_held(services, series)
    if await services.database.end_series(series.id):
        await delete_bytes(services, series.blob_key)
    return True


async def _is_passed_on(services: Services, series: Series) -> bool:
    key = await services.database.find_key(series.api_key)
    return key is not None and key.upstream is not None


async def end_slowest(services: Services, api_key: str, pause: float) -> bool:
    """End the slowest series, if there are too many. Return False if requests complete all that may make room.

    Wait `pause` seconds between two looks for such a series: by then a request that brought its last bytes holds it.
    """
    limits = services.limits
    too_many = {"per_key": limits.max_series_per_key, "in_all": limits.max_series}
    ended = await services.database.end_slowest_series(
        api_key, **too_many, rate=limits.least_rate, seconds=limits.rate_seconds
    )
    for blob_key in ended:
        await delete_bytes(services, blob_key)
    return bool(ended) or await _end_slowest_complete(services, api_key, too_many, pause)


async def _end_slowest_complete(services: Services, api_key: str, too_many: Mapping[str, int], pause: float) -> bool:
    """End the slowest complete series that no request of this server completes, if there are too many series.

    Its completion failed, and its client may never come back. Return False if requests complete all of them.

    Another server may be completing a shared series. Then its commit raises SeriesGone. So a shared series stays for as
    long as an upload may take, and those that came quickly end last.
    """
    limits = services.limits
    find = partial(
        services.database.slowest_complete_series,
        api_key,
        **too_many,
        older_than=limits.rate_seconds + limits.idle_seconds,
        shared_older_than=limits.max_upload_seconds,
        most=_MOST_COMPLETE,
    )
    before = {series.id for series in await find()}
    if before:
        await asyncio.sleep(pause)
    found = [series for series in await find() if series.id in before]
    for series in found:
        # If its bytes cannot be read, another one makes room. The database's errors are those of the new upload.
        with suppress(errors.ChunkInProgress, errors.SeriesGone, errors.StorageUnavailable):
            if await _hold_and_end(services, series):
                return True
    return not found  # without such a series there may be room by now


async def end_unless_held(services: Services, series: Series, *, if_empty: bool = False) -> bool:
    """End the series, which may have ended already, unless a request holds it. Return False if a request does.

    Return False too if the database or the storage fails. With `if_empty`, a series with recorded bytes stays.
    """
    try:
        await _hold_and_end(services, series, if_empty=if_empty)
    except (errors.ChunkInProgress, errors.Unavailable):
        return False
    except errors.SeriesGone:
        pass
    return True


async def _hold_and_end(services: Services, series: Series, *, if_empty: bool = False) -> bool:
    """End the series. Return False if it has ended already. Raise ChunkInProgress if a request holds it."""
    assembly = await parts_of(services, series).assembly(series.blob_key)
    try:
        has_ended = await services.database.end_series(series.id, if_empty=if_empty)
        if has_ended:
            await delete_bytes(services, series.blob_key)
        return has_ended
    finally:
        await assembly.release()


async def delete_bytes(services: Services, blob_key: str) -> None:
    """Delete the bytes of an ended series. What stays, the sweeper deletes.

    So a disk or a bucket that fails refuses no request: neither the one that ended the series, nor one that needed its
    room.
    """
    await delete_unneeded(services, services.blobs.parts.drop(blob_key))


def parts_of(services: Services, series: Series) -> Parts:
    """Return where the bytes of the series are. Raise StorageUnavailable if this server cannot reach them."""
    if series.shared != services.blobs.parts.shared:
        raise errors.StorageUnavailable(
            "This server cannot reach the bytes of this upload that have arrived. The signature is not spent. Send the "
            "request again.",
            detail=f"series {series.id} was begun on another kind of storage",
            retry_after=1,
        )
    return services.blobs.parts
