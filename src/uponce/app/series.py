"""A file that arrives in several requests, whatever protocol they speak: create → append … → finish, or terminate.

A series is one attempt to upload. Its bytes are written once, in place, in any order and in parallel; what is recorded
of them is durable and never changes. All signatures that it was sent with are spent by the transaction that completes
it, and none before.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from uponce.app.authorise import Verified
from uponce.app.judge import Wanted, judge
from uponce.app.ports import Assembly, Committed, Draft, Piece
from uponce.app.services import Services
from uponce.app.upload import Uploaded, drop_unneeded, read_back
from uponce.core.errors import (
    BlobCondemned,
    ChunkInProgress,
    GrantRefused,
    MalformedRequest,
    OutcomeUnknown,
    Refused,
    SeriesGone,
    StorageUnavailable,
    Unavailable,
)
from uponce.core.media_types import media_type
from uponce.core.parameters import read_parameters
from uponce.core.refusals import refusal_of
from uponce.core.series import Chunk, Series, check_chunk, freeze
from uponce.core.spans import Span
from uponce.core.values import Caller, ResourceType

_POLL_SECONDS = 0.05


async def create(
    services: Services,
    verified: Verified,
    params: Mapping[str, str],
    *,
    requested: ResourceType | None,
    filename: str | None,
    upload_id: str | None = None,
) -> Series:
    """Begin a series of the collected parameters that were verified; or the one that has this upload_id already."""
    grant, limits = verified.grant, services.limits
    new = Series(
        id=services.ids.hex(32),
        cloud=grant.cloud,
        api_key=grant.api_key,
        upload_id=upload_id,
        requested=requested,
        parameters=freeze(params),
        algorithm=verified.algorithm,
        filename=filename,
        blob_key=await services.blobs.begin(),
        created_at=int(services.clock.now()),
    )
    try:
        series = await services.database.create_series(
            new, grant, per_key=limits.max_series_per_key, in_all=limits.max_series
        )
    except OutcomeUnknown:
        raise
    except (Refused, Unavailable):
        await services.blobs.delete(new.blob_key)
        raise
    if series.id != new.id:
        await services.blobs.delete(new.blob_key)
    return series


async def status(services: Services, series_id: str) -> Series:
    """What has arrived. SeriesGone when there is no such series, or none any more."""
    series = await services.database.find_series(series_id)
    if series is None:
        raise SeriesGone(
            "This upload is complete, was given up, or never existed: nothing is taken for it. Begin a new one."
        )
    return series


async def append(services: Services, series: Series, chunk: Chunk) -> "Append":
    """Begin to write a chunk; nobody else may write there until it is discarded.

    ChunkInProgress when somebody does already, ChunkConflict when it does not fit what is there.
    """
    try:
        piece = await services.blobs.piece(series.blob_key, chunk.span)
    except StorageUnavailable:
        await status(services, series.id)  # gone, and its bytes with it: then that is the reason
        raise
    try:
        # Only now nobody can complete the series under this request.
        series = await status(services, series.id)
        check_chunk(series, chunk)
    except BaseException:
        await piece.release()
        raise
    piece.expect(series.spans)
    return Append(services, series, chunk, piece)


class Append:
    """A chunk that is being written."""

    def __init__(self, services: Services, series: Series, chunk: Chunk, piece: Piece) -> None:
        self._services = services
        self._chunk = chunk
        self._piece = piece
        self.series = series

    @property
    def size(self) -> int:
        return self._piece.size

    async def write(self, data: bytes) -> None:
        """The next bytes; those that are there already are compared and not written. ChunkConflict spoils it all."""
        if self.size + len(data) > self._chunk.span.size:
            raise MalformedRequest(
                f"The chunk has more than the {self._chunk.span.size} bytes that its header promises."
            )
        await self._piece.write(data)

    async def keep(self) -> Series:
        """What has been written so far becomes durable and is recorded; the series after it. May be repeated."""
        await self._piece.sync()
        start = self._chunk.span.start
        self.series = await self._services.database.record_span(
            self.series.id, Span(start, start + self.size), self._chunk.total
        )
        self._piece.keep()
        return self.series

    async def discard(self) -> None:
        """Let go; what was not kept counts as never sent."""
        await self._piece.release()


async def terminate(services: Services, series: Series) -> None:
    """Give it up; its signatures are free again. SeriesGone when it has ended before."""
    if not await services.database.end_series(series.id):
        await status(services, series.id)
    await services.blobs.delete(series.blob_key)


async def drop_if_empty(services: Services, series: Series) -> None:
    """Terminate a series of which nothing was recorded and nothing is arriving, so that a failed first chunk leaves no
    trace."""
    with suppress(SeriesGone, ChunkInProgress, Unavailable):
        assembly = await services.blobs.assembly(series.blob_key)
        try:
            if not (await status(services, series.id)).spans:
                await terminate(services, series)
        finally:
            await assembly.release()


async def finish(services: Services, series: Series, verified: Verified, caller: Caller) -> Uploaded:
    """Complete a series whose bytes are all there: hash → inspect → judge → publish → commit.

    Of several requests that come to this one does it; the others wait, and get SeriesGone. When the server cannot do it
    now, the series stays complete, and whoever asks again may. A refusal of its content or its signatures ends it.
    """
    # Not to be torn in the middle: a cancelled request lets it run to its own end.
    finishing = asyncio.ensure_future(_finish(services, series, caller))
    return Uploaded(await asyncio.shield(finishing), verified)


async def _finish(services: Services, series: Series, caller: Caller) -> Committed:
    assembly = await _hold_all(services, series)
    try:
        series = await status(services, series.id)
        try:
            draft = await _judge(services, series, assembly)
            return await _settle(services, series, assembly, draft, caller)
        except SeriesGone:  # swept or terminated meanwhile, by somebody who sees to the bytes
            raise
        except (Refused, BlobCondemned):
            await _give_up(services, series, assembly, caller)
            raise
    finally:
        await assembly.release()


async def _hold_all(services: Services, series: Series) -> Assembly:
    """Wait until no request writes to it or completes it; at most as long as a silent one may hold a piece."""
    loop = asyncio.get_running_loop()
    until = loop.time() + services.limits.idle_seconds
    while True:
        try:
            return await services.blobs.assembly(series.blob_key)
        except ChunkInProgress:
            await status(services, series.id)
            if loop.time() > until:
                raise
        except StorageUnavailable:
            await status(services, series.id)
            raise
        await asyncio.sleep(_POLL_SECONDS)


async def _judge(services: Services, series: Series, assembly: Assembly) -> Draft:
    spec = read_parameters(dict(series.parameters))
    wanted = Wanted(series.cloud, series.requested, spec, series.filename)
    digest = await assembly.seal(series.received)
    return await judge(services, wanted, assembly.key, assembly.path, digest)


async def _settle(services: Services, series: Series, assembly: Assembly, draft: Draft, caller: Caller) -> Committed:
    try:
        await assembly.publish(media_type(draft.facts))
        committed = await services.database.commit_series(series.id, draft, caller)
    except OutcomeUnknown as unknown:
        return await read_back(services, draft.blob_key, unknown)
    await drop_unneeded(services, committed)
    return committed


async def _give_up(services: Services, series: Series, assembly: Assembly, caller: Caller) -> None:
    """End it for good; what cannot be done now is the sweeper's."""
    with suppress(Unavailable):
        for grant in series.grants:
            record = await services.database.find_grant(grant.key)
            refusal = record and refusal_of(record, grant.max_uses)
            if isinstance(refusal, GrantRefused):
                await services.database.record_refusal(grant, refusal.code, caller)
        # Whoever ended it before us sees to the bytes, or has committed them from another server.
        if await services.database.end_series(series.id):
            await assembly.discard()
