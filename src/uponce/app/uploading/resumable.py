"""An upload with its own address (tus): begin, resume after each break, outcome. The client may end it.

Later requests bring only the address: the signature was verified at the beginning, and the commit spends it. Bytes come
in order and in requests of any size. If a request breaks off, what arrived of it stays.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import TypeAlias

from uponce.app.authorise import UploadRequest, authorise, refuse_spent
from uponce.app.services import Services
from uponce.app.unbroken import awaited_by_the_stop
from uponce.app.uploading.completion import finish
from uponce.app.uploading.ending import end_unless_held
from uponce.app.uploading.pipeline import Uploaded, answered
from uponce.app.uploading.series import Append, append, begin_series, get_series, settled, terminate, yielding_to_newer
from uponce.core import errors
from uponce.core.checksum import Checksum
from uponce.core.policy import Limits, refuse_size
from uponce.core.relaying import Forwarded
from uponce.core.series import Chunk, Series, expires_at, reply_key
from uponce.core.signature import Signer, collect_known, utc
from uponce.core.spans import Span
from uponce.core.upstream import read_obeyed
from uponce.core.values import Caller

_PENDING_SECONDS = 10
_PATIENCE_SECONDS, _PAUSE_SECONDS = 5, 0.5  # with a database that fails when a series is to end
# A stop of the server cancels a request.
_BROKEN_OFF = (
    errors.ChunkSuperseded,
    errors.MalformedRequest,
    errors.RequestTooSlow,
    errors.SeriesExpired,
    asyncio.CancelledError,
)


Progress: TypeAlias = Uploaded | Forwarded | Series


@dataclass(frozen=True, slots=True)
class SeriesAddress:
    """Where an upload is found. No client can guess `series_id`. The grant finds its outcome after it ended."""

    cloud: str
    grant_key: bytes
    series_id: str


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes of one request. `size` is how many it promises, `total` how many the file has, if the request says."""

    offset: int
    size: int | None = None
    total: int | None = None
    checksum: Checksum | None = None


async def begin(services: Services, request: UploadRequest, filename: str | None, total: int | None) -> Series:
    """Begin an upload and return its series. `total` in bytes; None if the client will send it later."""
    params = collect_known(request.fields)
    verified = await authorise(services, request, params)
    _check_total(total, services.limits.max_bytes(request.requested, verified.spec))
    return await begin_series(
        services, verified, params, request.caller, requested=request.requested, filename=filename, total=total
    )


async def begin_with(
    services: Services,
    request: UploadRequest,
    filename: str | None,
    total: int | None,
    part: Part,
    blocks: AsyncIterator[bytes],
) -> tuple[SeriesAddress, Progress]:
    """Do `begin` and `resume` in one request. If it fails, no client knows the address, so nothing stays.

    Also after OutcomeUnknown: if the row of the series can be deleted, no commit has happened, and none can follow.
    """
    series = await begin(services, request, filename, total)
    address = address_of(series)
    with awaited_by_the_stop():
        try:
            return address, await resume(services, address, part, blocks, request.caller)
        except asyncio.CancelledError:
            await end_unless_held(services, series)  # unless the upload is just being completed
            raise
        except errors.UponceError:
            await _terminate_patiently(services, series)
            raise


async def _terminate_patiently(services: Services, series: Series) -> None:
    """End a series that may have ended already, also if the database fails for some seconds."""
    loop = asyncio.get_running_loop()
    until = loop.time() + _PATIENCE_SECONDS
    while True:
        with suppress(errors.Unavailable):
            with suppress(errors.SeriesGone):
                await terminate(services, series)
            return
        if loop.time() > until:  # then a new series with its signature ends it, or the sweeper
            return
        await asyncio.sleep(_PAUSE_SECONDS)


def address_of(series: Series) -> SeriesAddress:
    return SeriesAddress(series.cloud, series.grant.key, series.id)


async def resume(
    services: Services, address: SeriesAddress, part: Part, blocks: AsyncIterator[bytes], caller: Caller
) -> Progress:
    """Take further bytes. Return the asset if they were the last ones, else the series with what has arrived.

    Return the asset also if the upload is complete and the request begins at its end and brings no byte.
    """
    try:
        series = await _find(services, address)
    except errors.SeriesGone:
        return await _add_nothing(services, address, part, blocks)
    try:
        with awaited_by_the_stop():
            series = await _take_in(services, series, part, blocks, caller)
    except errors.SeriesGone:  # another request has completed the series: this one may have brought bytes
        raise _complete(await _outcome(services, address)) from None
    return await _finish_if_complete(services, address, series, caller)


async def conclude(services: Services, address: SeriesAddress, caller: Caller) -> Progress:
    """Return the asset, or how far the upload is. Complete an upload whose bytes are all there.

    A request that is sending bytes yields: the client that asks is about to go on in its place.
    """
    try:
        series = await settled(services, await _find(services, address))
    except errors.SeriesGone:
        return await _outcome(services, address)
    return await _finish_if_complete(services, address, series, caller)


async def status(services: Services, address: SeriesAddress) -> Progress:
    """Return what is recorded by now. Change nothing."""
    try:
        return await _find(services, address)
    except errors.SeriesGone:
        return await _outcome(services, address)


async def end(services: Services, address: SeriesAddress) -> None:
    """End an upload that is not complete. Its signature is free again. Raise SeriesComplete or SeriesGone."""
    try:
        await terminate(services, await _find(services, address))
    except errors.SeriesGone:
        raise _complete(await _outcome(services, address)) from None


def sent_bytes(outcome: Uploaded | Forwarded) -> int:
    """Return how many bytes the client sent. The asset may have others, by `overwrite=0` or a preset."""
    if isinstance(outcome, Forwarded):
        return outcome.size
    committed = outcome.committed
    return committed.asset.digest.size if committed.received is None else committed.received


async def _find(services: Services, address: SeriesAddress) -> Series:
    series = await get_series(services, address.series_id)
    if address_of(series) != address:
        raise errors.SeriesGone("There is no upload at this address. Begin a new one.")
    if services.clock.now() > expires_at(series, services.limits):
        raise _expired(series, services.limits)
    return series


async def _finish_if_complete(services: Services, address: SeriesAddress, series: Series, caller: Caller) -> Progress:
    if not series.complete:
        return series
    try:
        return await finish(services, series, await _signer(services, series.api_key), caller)
    except errors.SeriesGone:  # another request has completed the series, with these bytes
        return await _outcome(services, address)


async def _outcome(services: Services, address: SeriesAddress) -> Uploaded | Forwarded:
    """Return what an upload became. Raise SeriesGone if it became nothing, or if the ledger forgot its grant.

    Raise OutcomeUnknown if an upload with its grant is pending in an upstream.
    """
    record = await services.database.find_grant(address.grant_key)  # first: the reply comes when `pending` ends
    # No client can guess the address, so it leads to the answer also if the signature was revoked since.
    reply = await services.database.confirm_reply(address.grant_key, reply_key(address.series_id), also_revoked=True)
    if reply is None and record is not None and record.grant.cloud == address.cloud and record.pending:
        raise errors.OutcomeUnknown(
            "This upload was passed on to the upstream, and its outcome is not known yet. Wait "
            f"{_PENDING_SECONDS} seconds, then ask this address again.",
            retry_after=_PENDING_SECONDS,
        )
    if reply is None or record is None or record.grant.cloud != address.cloud:
        raise errors.SeriesGone(
            "There is no upload at this address: it was cancelled or refused, it ended long ago, or it never existed. "
            "Begin a new one."
        )
    return answered(replace(reply.answer, replayed=True), await _signer(services, record.grant.api_key))


async def _add_nothing(
    services: Services, address: SeriesAddress, part: Part, blocks: AsyncIterator[bytes]
) -> Uploaded | Forwarded:
    """Return the outcome of an upload to a request without bytes at its end. Raise SeriesComplete to any other request.

    tuspy and tus-java-client send such a request after the last byte, and take a refusal for a failed upload.
    """
    outcome = await _outcome(services, address)
    size = sent_bytes(outcome)
    if part.offset != size or part.size or part.total not in (None, size):
        raise _complete(outcome)
    async for _ in blocks:
        raise _complete(outcome)
    if part.checksum:
        part.checksum.check(part.checksum.begin())
    return outcome


def _complete(outcome: Uploaded | Forwarded) -> errors.SeriesComplete:
    name = outcome.public_id if isinstance(outcome, Forwarded) else outcome.committed.asset.name.public_id
    return errors.SeriesComplete(
        f"This upload is complete: it became {name}. To send another file, begin with a new signature."
    )


async def _signer(services: Services, api_key: str) -> Signer:
    """Return the signer of the answers: the key with its present secret, since only the first request is signed."""
    key = await services.database.find_key(api_key)
    if key is None:
        raise errors.UnknownApiKey(f"Unknown API key {api_key}")
    return Signer.of(key)


async def _take_in(
    services: Services, series: Series, part: Part, blocks: AsyncIterator[bytes], caller: Caller
) -> Series:
    chunk = _chunk(series, part, services.limits.max_bytes(series.requested, read_obeyed(dict(series.parameters))))
    writer = await append(services, series, chunk)
    try:
        # Here no other request of this server completes this series: its own spend would look like that of another one.
        await refuse_spent(services, series.grant, caller)
        if part.offset != writer.series.end:
            raise _conflict(writer.series, part)
        await _write(services, writer, chunk, part.checksum, blocks)
        return await writer.keep()
    except errors.ChunkConflict:
        now = await get_series(services, series.id)
        if now.end > writer.series.end:  # another server has recorded other bytes in this place since
            raise _conflict(now, part) from None
        raise
    finally:
        await writer.discard()


def _chunk(series: Series, part: Part, limit: int) -> Chunk:
    """Return the span of all bytes that may still come, so requests with other offsets exclude each other."""
    _check_total(part.total, limit)
    if part.total is not None and part.total < series.end:
        raise errors.MalformedRequest(
            f"{series.end} bytes of this upload have arrived, but its given length is {part.total}. Send the length of "
            "the whole file."
        )
    total = series.total if part.total is None else part.total
    end = limit if total is None else total
    if not series.end <= part.offset <= end:
        raise _conflict(series, part)
    chunk = Chunk(Span(part.offset, end), total)
    _check_end(part.offset + (part.size or 0), chunk)
    return chunk


async def _write(
    services: Services, writer: Append, chunk: Chunk, checksum: Checksum | None, blocks: AsyncIterator[bytes]
) -> None:
    """Write all bytes of the request. Keep what has arrived on the way, unless a checksum covers the whole request."""
    found = checksum and checksum.begin()
    kept = 0
    try:
        async with _in_time(services, writer.series), yielding_to_newer(writer.is_wanted):
            async for block in blocks:
                _check_end(chunk.span.start + writer.size + len(block), chunk)
                await writer.write(block)
                if found:
                    found.update(block)
                # Not at the end of the file: more bytes may come, and then it is another file.
                elif kept + services.limits.record_bytes <= writer.size < chunk.span.size:
                    await writer.keep()
                    kept = writer.size
                del block  # or it stays in memory until the next one arrives
    except _BROKEN_OFF:
        if not found:
            with suppress(errors.UponceError):
                await writer.keep()
        raise
    if checksum and found:
        checksum.check(found)


@asynccontextmanager
async def _in_time(services: Services, series: Series) -> AsyncIterator[None]:
    """Raise SeriesExpired inside when the time of the series ends."""
    try:
        async with asyncio.timeout(expires_at(series, services.limits) - services.clock.now()) as scope:
            yield
    except TimeoutError:
        if not scope.expired():
            raise
        raise _expired(series, services.limits) from None


def _expired(series: Series, limits: Limits) -> errors.SeriesExpired:
    return errors.SeriesExpired(
        f"The time of this upload ended at {utc(expires_at(series, limits))}. Ask for a new signature and begin again."
    )


def _conflict(series: Series, part: Part) -> errors.OffsetConflict:
    return errors.OffsetConflict(
        f"{series.end} bytes of this upload have arrived, but the request begins at byte {part.offset}. Send HEAD, and "
        "continue at its Upload-Offset."
    )


def _check_total(total: int | None, limit: int) -> None:
    if total == 0:
        raise errors.EmptyFile("Empty file. Send at least one byte.")
    refuse_size(total or 0, limit)


def _check_end(position: int, chunk: Chunk) -> None:
    if chunk.total is None:
        refuse_size(position, chunk.span.end, is_whole=False)
    if position > chunk.span.end:
        raise errors.FileTooLarge(
            f"The file has {chunk.total} bytes by its Upload-Length, but the request brings it to {position} or more. "
            "Send no more than Upload-Length, or begin a new upload."
        )
