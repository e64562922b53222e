"""Complete a series whose bytes are all there: hash → inspect → judge → publish → commit, or pass it on."""

from contextlib import suppress
from dataclasses import replace

from uponce.app.authorise import record_refusal
from uponce.app.ports import Assembly, Committed, Draft
from uponce.app.relaying.held import send_spooled
from uponce.app.relaying.relay import Passing
from uponce.app.services import Services
from uponce.app.unbroken import unbroken
from uponce.app.uploading.pipeline import (
    Uploaded,
    Wanted,
    answered,
    counted,
    drop_unneeded,
    inspect,
    judge,
    read_back,
)
from uponce.app.uploading.series import hold_all, status, stored_parts
from uponce.core.errors import (
    BlobCondemned,
    GrantRefused,
    OutcomeUnknown,
    Refused,
    SeriesGone,
    StorageUnavailable,
    Unavailable,
    UpstreamRefused,
)
from uponce.core.formats import stored_type
from uponce.core.parameters import read_parameters
from uponce.core.policy import judge_content
from uponce.core.refusals import refusal_of
from uponce.core.relaying import Forwarded
from uponce.core.series import Series
from uponce.core.signature import Signer
from uponce.core.spans import Span
from uponce.core.upstream import read_relayed
from uponce.core.values import Caller, Payer, Upstream


async def finish(services: Services, series: Series, signer: Signer, caller: Caller) -> Uploaded | Forwarded:
    """Complete a series whose bytes are all there: hash → inspect → judge → publish → commit, or pass it on.

    One of several requests does it; the others wait and raise SeriesGone. If the server cannot do it now, the series
    stays complete, and the next request tries again. A refusal of its content or its signatures ends the series.
    """
    outcome = await unbroken(counted(services, _finish(services, series, caller)))
    return answered(outcome, signer)


async def _finish(services: Services, series: Series, caller: Caller) -> Committed | Forwarded:
    assembly = await hold_all(services, series, services.limits.idle_seconds)
    try:
        series = await status(services, series.id)
        try:
            key = await services.database.find_key(series.api_key)
            if key is not None and key.upstream is not None:
                return await _pass_on(services, series, key.upstream, assembly, caller)
            draft = await _judge(services, series, assembly, caller)
            return await _settle(services, series, assembly, draft, caller)
        except SeriesGone:  # another request ended the series, and deletes the bytes
            raise
        except StorageUnavailable:
            await status(services, series.id)  # gone, and its bytes with it: then that is the reason
            raise
        except (Refused, BlobCondemned) as error:
            if not _may_pass_later(error, series):
                await _give_up(services, series, assembly, caller)
            raise
    finally:
        await assembly.release()


def _may_pass_later(error: Refused | BlobCondemned, series: Series) -> bool:
    if isinstance(error, UpstreamRefused):
        return error.may_pass_later
    return series.shared and isinstance(error, BlobCondemned)  # its parts are there


async def _judge(services: Services, series: Series, assembly: Assembly, caller: Caller) -> Draft:
    spec = read_parameters(dict(series.parameters))
    wanted = Wanted(series.cloud, series.requested, spec, series.filename)
    digest = await assembly.seal(series.received, stored_parts(services, series.id, Span(0, series.received)))
    draft = await judge(services, wanted, Payer.of(series.grants[0], caller), assembly.key, assembly.path, digest)
    # Who has only the address of the upload may ask under it what became of it.
    return draft if series.upload_id is not None else replace(draft, idempotency_key=series.id)


async def _pass_on(
    services: Services, series: Series, upstream: Upstream, assembly: Assembly, caller: Caller
) -> Forwarded:
    """Pass the whole file on. The pending row ends the series, so from then on its bytes are only this request's."""
    params = dict(series.parameters)
    spec = read_relayed(params)
    digest = await assembly.seal(series.received, stored_parts(services, series.id, Span(0, series.received)))
    judge_content(digest, spec, services.limits.max_bytes(series.requested, spec))
    wanted = Wanted(series.cloud, series.requested, spec, series.filename)
    if services.inspects:
        await inspect(services, assembly.path, digest, wanted, Payer.of(series.grants[0], caller))
    passing = Passing(
        upstream,
        series.grants,
        spec,
        params,
        series.requested,
        series.filename,
        caller,
        idempotency_key=None if series.upload_id is not None else series.id,
        series_id=series.id,
    )
    try:
        return await send_spooled(services, passing, digest, assembly.blocks())
    finally:
        with suppress(Unavailable):  # should this fail, the sweeper finds it
            if await services.database.find_series(series.id) is None:
                await assembly.clear()


async def _settle(services: Services, series: Series, assembly: Assembly, draft: Draft, caller: Caller) -> Committed:
    try:
        await assembly.publish(stored_type(draft.facts))
        with services.metrics.committing():
            committed = await services.database.commit_series(series.id, draft, caller)
    except OutcomeUnknown as unknown:
        return await read_back(services, draft.blob_key, unknown)
    except (Refused, Unavailable):
        await assembly.retract()
        raise
    with suppress(Unavailable):  # should this fail, the sweeper finds it
        await assembly.clear()
    await drop_unneeded(services, committed)
    return committed


async def _give_up(services: Services, series: Series, assembly: Assembly, caller: Caller) -> None:
    """End it for good; what cannot be done now is the sweeper's."""
    with suppress(Unavailable):
        for grant in series.grants:
            record = await services.database.find_grant(grant.key)
            refusal = record and refusal_of(record, grant.max_uses)
            if isinstance(refusal, GrantRefused):
                await record_refusal(services, grant, refusal.code, caller)
        # A request that ended the series before deletes the bytes, or another server has committed them.
        if await services.database.end_series(series.id):
            await assembly.discard()
