"""Accept one chunk of an upload, with its own signature: receive → record → complete the series after the last chunk.

The first chunk that arrives begins the series. Later chunks join it under its name, each with a genuine signature.
Browsers send the same signature again. SDKs sign each chunk again, over equal parameters.
"""

from collections.abc import AsyncIterator
from contextlib import suppress

from uponce.app.authorise import (
    UploadRequest,
    Verified,
    check_grant_fresh,
    check_in_time,
    check_route,
    check_usable,
    refusals_recorded,
    verify_signed,
)
from uponce.app.ports import Spooled
from uponce.app.services import Services
from uponce.app.uploading.completion import finish
from uponce.app.uploading.ending import end_unless_held
from uponce.app.uploading.intake import Event, Receiver
from uponce.app.uploading.pipeline import Uploaded
from uponce.app.uploading.series import REUSE, Append, append, begin_series, yielding_to_newer
from uponce.core.errors import ChunkInProgress, ChunkSuperseded, InvalidSignature, MalformedRequest, Refused, SeriesGone
from uponce.core.relaying import Forwarded
from uponce.core.series import Chunk, Series, changed_parameters, check_alive, check_chunk, check_parameters, check_size


async def upload_chunk(
    services: Services, request: UploadRequest, upload_id: str, chunk: Chunk, events: AsyncIterator[Event]
) -> Uploaded | Forwarded | Series:
    """Return the asset or the upstream's answer if this part completed the upload, else the series.

    `upload_id` is the client's name for the whole upload.
    """
    intake = ChunkIntake(services, request, upload_id, chunk)
    try:
        async with intake:
            try:
                async with yielding_to_newer(intake.is_wanted):
                    await intake.receive(events)
            except ChunkSuperseded as superseded:
                await intake.check_awaited(superseded)
                raise
            verified, body = await intake.complete()
            series = await intake.keep(body)
        if not series.complete:
            return series
        return await finish(services, series, verified.signer, request.caller)
    except SeriesGone:
        if intake.proven is not None:  # completed by another request: raise that refusal
            await check_usable(services, intake.proven, request)
        raise


class ChunkIntake(Receiver[Spooled | Append]):
    """Receives one part, at its place in the file. A part that comes before its signature goes to the spool first."""

    def __init__(self, services: Services, request: UploadRequest, upload_id: str, chunk: Chunk) -> None:
        super().__init__(services, request)
        self._upload_id = upload_id
        self._chunk = chunk
        self._series: Series | None = None
        self._params: dict[str, str] = {}
        self.proven: Verified | None = None  # set before the series is joined, and `verified` after that

    async def __aexit__(self, *details: object) -> None:
        await super().__aexit__(*details)
        if self._series is not None and details[0] is not None and not self._series.spans:
            # A failed first chunk leaves no trace.
            await end_unless_held(self._services, self._series, if_empty=True)

    async def is_wanted(self) -> bool:
        return isinstance(self.body, Append) and await self.body.is_wanted()

    async def check_awaited(self, superseded: ChunkSuperseded) -> None:
        """Raise ChunkInProgress if an older request asked for the part: the one that completes the upload.

        Its client may have lost that request, and sends the last part again. No newer answer will come.
        """
        assert self._series is not None
        series = await self._services.database.find_series(self._series.id)
        if series is None or series.complete:
            raise ChunkInProgress(
                "Another request completes this upload now. Send this request again: its answer shows the outcome."
            ) from superseded

    async def keep(self, body: Spooled | Append) -> Series:
        """Record the part, which must be whole. Return the series with this part."""
        append, size = await self._placed(body), self._chunk.span.size
        if append.size != size:
            raise MalformedRequest(
                f"The chunk has {append.size} bytes, but its Content-Range gives {size}. Send them alike."
            )
        try:
            return await append.keep()
        except SeriesGone:
            # The first chunk, on another server, has failed and ended the empty series.
            if append.series.spans or not append.series.shared:
                raise
        assert self.verified is not None
        await check_usable(self._services, self.verified, self.request)
        self._series = await self._begin_again(self.verified)
        append.move(self._series)
        return await append.keep()

    async def _admit(self, params: dict[str, str]) -> Verified:
        services, request = self._services, self.request
        series = await services.database.find_named_series(request.cloud, params.get("api_key", ""), self._upload_id)
        verified, params = await self._verify(params, series)
        check_route(params, request.cloud, request.requested)
        joined = series is not None and await services.database.has_joined_series(series.id, verified.grant.key)
        if series is not None and not joined and not self._chunk.span.size and self._changed(series, params):
            series = None  # a stranger must not learn that the id exists
        if not joined:
            await check_in_time(services, verified, request)
        await check_usable(services, verified, request)
        check_size(self._chunk, services.limits.max_bytes(request.requested, verified.spec), services.limits)
        self._params, self.proven = params, verified
        self._series = await self._join(series, verified, joined=joined)
        return verified

    async def _verify(self, params: dict[str, str], series: Series | None) -> tuple[Verified, dict[str, str]]:
        """Return what the parameters prove, without a public_id that PHP's SDK added to a later part unsigned.

        A signature that cannot belong to the series is refused as if there were none: else it shows that the id exists.
        """
        services, cloud = self._services, self.request.cloud
        try:
            return await verify_signed(services, cloud, params), params
        except InvalidSignature as invalid:
            if series is None or "public_id" not in params:
                raise
            refusal = invalid
        params = {name: value for name, value in params.items() if name != "public_id"}
        with suppress(Refused):
            verified = await verify_signed(services, cloud, params)
            joined = await services.database.has_joined_series(series.id, verified.grant.key)
            if joined or not self._changed(series, params):
                return verified, params
        raise refusal

    def _changed(self, series: Series, params: dict[str, str]) -> list[str]:
        return changed_parameters(series, params, self.request.requested)

    async def _join(self, series: Series | None, verified: Verified, *, joined: bool = False) -> Series:
        """Return the series with this signature in it. Begin a series if it does not exist."""
        services, request = self._services, self.request
        if series is None and not self._chunk.span.size:
            raise SeriesGone(
                "This chunk is empty, and no unfinished upload with its parameters has its X-Unique-Upload-Id. The "
                "upload is complete if the answer to an earlier chunk has a public_id. Otherwise begin again, with "
                "chunks that have bytes."
            )
        if series is None:
            series = await begin_series(
                services,
                verified,
                self._params,
                request.caller,
                requested=request.requested,
                filename=self.filename,
                upload_id=self._upload_id,
            )
        check_alive(series, services.clock.now(), services.limits)
        check_parameters(series, self._params, request.requested)
        check_chunk(series, self._chunk)
        if joined or series.grant.key == verified.grant.key:
            return series
        try:
            async with refusals_recorded(services, verified.grant, request.caller, REUSE):
                return await services.database.join_series(
                    series.id, verified.grant, most=services.limits.signatures_per_series
                )
        except SeriesGone:
            if series.spans:
                raise
            return await self._begin_again(verified)

    async def _begin_again(self, verified: Verified) -> Series:
        """Begin the series again: the request that began it failed, and ended it while it was empty."""
        check_grant_fresh(self._services, verified)
        return await self._join(None, verified)

    def _enter(self, verified: Verified) -> int:
        assert self._series is not None
        limits = self._services.limits
        self._counted.enter_context(self._services.attempts.of_series(self._attempt, self._series.id, limits))
        return limits.max_bytes(self.request.requested, verified.spec)

    async def _open(self) -> Spooled | Append:
        if self._series is None:
            return await self._services.blobs.receive()
        return await self._append()

    async def _append(self) -> Append:
        series, verified = self._series, self.verified
        assert series is not None
        assert verified is not None
        try:
            return await append(self._services, series, self._chunk)
        except SeriesGone:
            if series.spans:
                raise
            self._series = await self._begin_again(verified)
            return await append(self._services, self._series, self._chunk)

    async def _placed(self, body: Spooled | Append) -> Append:
        if isinstance(body, Append):
            return body
        self.release()
        try:
            await body.seal()
            self.body = placed = await self._append()
            async for block in body.blocks():
                await placed.write(block)
        finally:
            await body.discard()
        return placed
