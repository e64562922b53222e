"""A file that arrives in several requests of any protocol: begin → append … → finish, or terminate.

A series is one attempt to upload. Its bytes are written once, in any order and in parallel; those of a shared series,
on any server. Recorded bytes are durable and never change. The transaction that completes the series spends all its
signatures, and nothing spends them earlier.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TypeVar

from uponce.app.authorise import Verified, refusals_recorded
from uponce.app.ports import Assembly, HeldPart
from uponce.app.services import Services
from uponce.app.uploading.ending import delete_bytes, end_if_slow, end_slowest, parts_of
from uponce.core import errors
from uponce.core.series import Chunk, Series, StoredPart, check_chunk, check_parts_left, freeze
from uponce.core.spans import Span
from uponce.core.values import Caller, ResourceType

T = TypeVar("T")

_PARTS = 500
_NOTE_SECONDS = 2.0
_TRIES = 5
_POLL_SECONDS = 0.05
_LOOK_SECONDS = 0.25
# The refusals for the audit, if a commit comes after the look-up. A request whose grant is in use may succeed later.
REUSE = errors.SignatureUsed, errors.SignatureRevoked
_ABOUT_TO_HOLD_SECONDS = 1.0  # a request whose bytes were the last ones holds the series of a slow server by then


async def begin_series(
    services: Services,
    verified: Verified,
    params: Mapping[str, str],
    caller: Caller,
    *,
    requested: ResourceType | None,
    filename: str | None,
    upload_id: str | None = None,
    total: int | None = None,
) -> Series:
    """Begin a series with the verified parameters, and return it, or the one that has this upload_id already.

    Slow series make room: those of the same signature, and the slowest if there are too many. So a stranger cannot keep
    the holder of a signature, or the users of a key, from their uploads by series that are begun and left. The holder
    can also begin again after the first request ended with its server.
    """
    grant, parts = verified.grant, services.blobs.parts
    async with refusals_recorded(services, grant, caller, REUSE), services.attempts.beginning(grant):
        new = Series(
            id=services.ids.hex(32),
            cloud=grant.cloud,
            api_key=grant.api_key,
            grant=grant,
            upload_id=upload_id,
            requested=requested,
            parameters=freeze(params),
            algorithm=verified.signer.algorithm,
            filename=filename,
            blob_key=await parts.begin(),
            created_at=int(services.clock.now()),
            total=total,
            shared=parts.shared,
        )
        try:
            series = await _insert(services, new)
        except errors.OutcomeUnknown:
            raise
        except (errors.Refused, errors.Unavailable):
            await _undo_begin(services, new)
            raise
    if series.id != new.id:
        await _undo_begin(services, new)
    return series


async def _undo_begin(services: Services, new: Series) -> None:
    if not new.shared:  # a shared blob has no bytes yet
        await delete_bytes(services, new.blob_key)


async def _insert(services: Services, new: Series) -> Series:
    limits = services.limits
    insert = partial(
        services.database.create_series,
        new,
        per_key=limits.max_series_per_key,
        in_all=limits.max_series,
        # No lock shows if another server completes such a series. So it stays, and the first commit wins.
        complete_before=new.created_at - limits.rate_seconds,
    )
    for _ in range(_TRIES):
        try:
            return await insert()
        except errors.SignatureInUse:
            others = await services.database.find_series_of(new.grant.key)
            if any(series.complete for series in others):
                await asyncio.sleep(_ABOUT_TO_HOLD_SECONDS)
            if others and not any([await end_if_slow(services, series) for series in others]):
                raise
        except errors.TooManySeries:
            if not await end_slowest(services, new.api_key, _ABOUT_TO_HOLD_SECONDS):
                raise
    return await insert()


async def get_series(services: Services, series_id: str) -> Series:
    """Return the series with what has arrived. Raise SeriesGone if it has ended or never existed."""
    series = await services.database.find_series(series_id)
    if series is None:
        raise errors.SeriesGone(
            "This upload is complete, was ended, or never existed, so the server accepts no bytes for it. Begin a new "
            "upload."
        )
    return series


async def append(services: Services, series: Series, chunk: Chunk) -> "Append":
    """Hold the span of a chunk, for writing. No other request of this server writes there until `discard`.

    A request that holds the span now is asked to release it. Raise ChunkInProgress if it does not, because it completes
    the series. Raise ChunkConflict if the chunk does not fit what has arrived, TooManyParts if the series has its most.
    """
    part = await _take_over(
        services,
        series,
        chunk.span,
        lambda: parts_of(services, series).hold(series.blob_key, chunk.span),
        services.limits.takeover_seconds,
    )
    try:
        # From now on no other request can complete the series under this one.
        series = await get_series(services, series.id)
        check_chunk(series, chunk)
        check_parts_left(series, services.limits)
    except BaseException:
        await part.release()
        raise
    part.expect(series.spans)
    return Append(services, series, chunk, part)


class Append:
    """A chunk that is being written."""

    def __init__(self, services: Services, series: Series, chunk: Chunk, part: HeldPart) -> None:
        self._services = services
        self._chunk = chunk
        self._part = part
        self._kept = 0
        self._unnoted = 0
        self._noted_at = asyncio.get_running_loop().time()
        self.series = series

    @property
    def size(self) -> int:
        return self._part.size

    async def is_wanted(self) -> bool:
        """Return whether a newer request asks for these bytes."""
        return await self._part.wanted()

    async def write(self, data: bytes | bytearray) -> None:
        """Write the next bytes, and compare those that exist. After ChunkConflict nothing can be written."""
        if self.size + len(data) > self._chunk.span.size:
            raise errors.MalformedRequest(
                f"The chunk has more than the {self._chunk.span.size} bytes of its header. Send no more than these."
            )
        await self._part.write(data)
        await self._note(len(data))

    async def _note(self, size: int) -> None:
        """Note now and then that bytes arrive: a chunk counts only when it is whole, which may take minutes."""
        self._unnoted += size
        now = asyncio.get_running_loop().time()
        if now < self._noted_at + _NOTE_SECONDS:
            return
        with self._services.attempts.noting(self.series.id) as is_first:
            if is_first:  # else the bytes go into a later note
                with suppress(errors.Unavailable):
                    await self._services.database.note_arrival(self.series.id, self._unnoted)
                self._unnoted, self._noted_at = 0, now

    async def keep(self) -> Series:
        """Make durable and record what has been written so far. Return the new state of the series. May be repeated.

        Raise ChunkConflict if another server has recorded other bytes there.
        """
        start, size = self._chunk.span.start, self.size
        span = Span(start + self._kept, start + size)
        for tries_left in reversed(range(_TRIES)):
            parts = await self._durable(span)
            try:
                self.series = await self._services.database.record_span(self.series.id, span, self._chunk.total, parts)
                break
            except errors.ChunkInProgress:  # another server has recorded some since, so fewer are left to record
                if not tries_left:
                    raise
        self._part.keep()
        self._kept = size
        return self.series

    async def _durable(self, span: Span) -> Sequence[StoredPart]:
        try:
            return await self._part.sync(await self._recorded(span), self.series.blob_key)
        except errors.StorageUnavailable:
            await get_series(self._services, self.series.id)  # if the series is gone with its bytes, raise that
            raise

    async def _recorded(self, span: Span) -> list[StoredPart]:
        if not self.series.shared:
            return []
        return [part async for part in stored_parts(self._services, self.series.id, span)]

    def move(self, series: Series) -> None:
        """Give the bytes that were not kept to another shared series."""
        self.series = series

    async def discard(self) -> None:
        """Release the bytes. What was not kept counts as never sent."""
        await self._part.release()


async def terminate(services: Services, series: Series) -> None:
    """End a series. Its signatures are free again. Raise SeriesGone if it has ended before."""
    if not await services.database.end_series(series.id):
        await get_series(services, series.id)
    await delete_bytes(services, series.blob_key)


async def stored_parts(services: Services, series_id: str, span: Span) -> AsyncIterator[StoredPart]:
    """Yield the parts that have bytes of the span, in order. It reads a page at a time."""
    while page := await services.database.series_parts(series_id, span, _PARTS):
        for part in page:
            yield part
        span = Span(page[-1].span.end, span.end)
        if not span.size > 0:
            return


async def settled(services: Services, series: Series) -> Series:
    """Return the series as soon as no request writes to it. A request that writes yields, and keeps what it can."""
    await (await hold_all(services, series, services.limits.takeover_seconds)).release()
    return await get_series(services, series.id)


async def hold_all(services: Services, series: Series, seconds: float) -> Assembly:
    return await _take_over(
        services, series, None, lambda: parts_of(services, series).assembly(series.blob_key), seconds
    )


async def _take_over(
    services: Services, series: Series, span: Span | None, hold: Callable[[], Awaitable[T]], seconds: float
) -> T:
    """Return what `hold` returns as soon as other requests release the span. Raise ChunkInProgress after `seconds`."""
    until = asyncio.get_running_loop().time() + seconds
    try:
        with suppress(errors.ChunkInProgress):
            return await hold()
        with services.attempts.waiting(series.id, services.limits):
            async with parts_of(services, series).asking(series.blob_key, span):
                while True:
                    await asyncio.sleep(_POLL_SECONDS)
                    try:
                        return await hold()
                    except errors.ChunkInProgress:
                        await get_series(services, series.id)  # raises if there is no reason to wait any more
                        if asyncio.get_running_loop().time() > until:
                            raise
    except errors.StorageUnavailable:
        await get_series(services, series.id)  # if the series is gone with its bytes, raise that
        raise


@asynccontextmanager
async def yielding_to_newer(is_wanted: Callable[[], Awaitable[bool]]) -> AsyncIterator[None]:
    """Raise ChunkSuperseded inside, where a body is awaited, as soon as a newer request asks for the same bytes.

    The older connection may be dead without a sign of it.
    """
    try:
        async with asyncio.timeout(None) as scope:
            looking = asyncio.create_task(_look(is_wanted, scope))
            try:
                yield
            finally:
                looking.cancel()
    except TimeoutError:
        if not scope.expired():
            raise
        raise errors.ChunkSuperseded(
            "A newer request for the same part of this upload replaced this request. "
            "Wait for the answer to the newer request."
        ) from None


async def _look(is_wanted: Callable[[], Awaitable[bool]], scope: asyncio.Timeout) -> None:
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        with suppress(errors.Unavailable):
            if await is_wanted():
                scope.reschedule(0)
                return
