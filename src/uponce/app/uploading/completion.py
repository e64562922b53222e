"""Complete a series whose bytes are all there: hash → inspect → judge → publish → commit, or pass it on."""

from contextlib import suppress
from functools import partial

from uponce.app.authorise import Admitted, read_for, refuse_spent
from uponce.app.ports import Assembly, Committed, Draft
from uponce.app.relaying.held import send_spooled
from uponce.app.services import Services
from uponce.app.unbroken import unbroken
from uponce.app.uploading.pipeline import (
    Uploaded,
    answered,
    delete_unneeded,
    draft_of,
    examine,
    followed_up,
    read_back_upload,
    settle,
)
from uponce.app.uploading.series import get_series, hold_all, stored_parts
from uponce.core import errors
from uponce.core.formats import stored_type
from uponce.core.relaying import Forwarded
from uponce.core.series import Series, reply_key
from uponce.core.signature import Signer
from uponce.core.spans import Span
from uponce.core.values import ApiKey, Caller, Digest


async def finish(services: Services, series: Series, signer: Signer, caller: Caller) -> Uploaded | Forwarded:
    """Complete a series whose bytes are all there, and return the asset, or the upstream's answer.

    One of several requests completes it; the others wait and raise SeriesGone. If the server cannot complete it now,
    the series stays, and the next request tries again. A refusal of its content or its signatures ends the series.
    """
    outcome = await unbroken(followed_up(services, partial(_finish, services, series, caller)))
    return answered(outcome, signer)


async def _finish(services: Services, series: Series, caller: Caller) -> Committed | Forwarded:
    assembly = await hold_all(services, series, services.limits.idle_seconds)
    try:
        series = await get_series(services, series.id)
        try:
            admitted = _admitted(series, await services.database.find_key(series.api_key), caller)
            digest = await assembly.seal(series.received, stored_parts(services, series.id, Span(0, series.received)))
            facts = await examine(services, admitted, assembly.path, digest)
            if admitted.upstream is not None:
                return await _pass_on(services, series, admitted, assembly, digest)
            assert facts is not None
            draft = draft_of(services, admitted, assembly.key, digest, facts)
            return await _commit(services, series, assembly, draft, caller)
        except errors.SeriesGone:  # another request ended the series, and deletes the bytes
            raise
        except errors.StorageUnavailable:
            await get_series(services, series.id)  # if the series is gone with its bytes, raise that
            raise
        except (errors.Refused, errors.BlobCondemned) as error:
            if not _may_pass_later(error, series):
                await _give_up(services, series, assembly, caller)
            raise
    finally:
        await assembly.release()


def _may_pass_later(error: errors.Refused | errors.BlobCondemned, series: Series) -> bool:
    if isinstance(error, errors.UpstreamRefused):
        return error.may_pass_later
    return series.shared and isinstance(error, errors.BlobCondemned)  # its parts are still in the store


def _admitted(series: Series, key: ApiKey | None, caller: Caller) -> Admitted:
    params, upstream = dict(series.parameters), None if key is None else key.upstream
    return Admitted(
        series.grant,
        read_for(upstream, params),
        params,
        series.requested,
        series.filename,
        caller,
        # A client that has only the address of the upload may ask for its answer there.
        idempotency_key=None if series.upload_id is not None else reply_key(series.id),
        series_id=series.id,
        upstream=upstream,
    )


async def _pass_on(
    services: Services, series: Series, admitted: Admitted, assembly: Assembly, digest: Digest
) -> Forwarded:
    """Pass the whole file on. The pending row ends the series, so from then on its bytes are only this request's."""
    try:
        return await send_spooled(services, admitted, digest, assembly.blocks())
    finally:
        with suppress(errors.Unavailable):  # if this fails, the sweeper deletes them
            if await services.database.find_series(series.id) is None:
                await delete_unneeded(services, assembly.clear())


async def _commit(services: Services, series: Series, assembly: Assembly, draft: Draft, caller: Caller) -> Committed:
    async def commit() -> Committed:
        await assembly.publish(stored_type(draft.asset.facts))
        with services.metrics.committing():
            committed = await services.database.commit_series(series.id, draft, caller)
        await delete_unneeded(services, assembly.clear())
        return committed

    return await settle(commit, partial(read_back_upload, services, series.grant, draft), assembly.retract)


async def _give_up(services: Services, series: Series, assembly: Assembly, caller: Caller) -> None:
    """Write the refusals of its signatures to the audit, and end the series. If that fails, the sweeper ends it."""
    with suppress(errors.Unavailable):
        for grant in await services.database.series_grants(series.id):
            with suppress(errors.GrantRefused):
                await refuse_spent(services, grant, caller)
        # A request that ended the series before deletes the bytes, or another server has committed them.
        if await services.database.end_series(series.id):
            await assembly.discard()
