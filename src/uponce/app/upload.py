"""Accept one upload: take it in → inspect → judge → make it durable → commit. The commit is the only arbiter.

A repeat of an upload that was answered already, told by its Idempotency-Key, is taken in and compared, and no more.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from dataclasses import dataclass, replace

from uponce.app.authorise import Signer, Verified, record_refusal
from uponce.app.intake import Event, Intake, UploadRequest
from uponce.app.judge import Wanted, judge, payer_of
from uponce.app.ports import Committed, Draft, Stage
from uponce.app.services import Services
from uponce.core.errors import GrantRefused, OutcomeUnknown, Refused, Unavailable
from uponce.core.media_types import stored_type
from uponce.core.policy import judge_content
from uponce.core.values import Caller, Digest, Grant


@dataclass(frozen=True, slots=True)
class Uploaded:
    """What to answer with: the asset, how it came about, and who signs the answer."""

    committed: Committed
    signer: Signer


async def upload(services: Services, request: UploadRequest, events: AsyncIterator[Event]) -> Uploaded:
    """One attempt. Whatever goes wrong before the commit spends nothing and leaves nothing behind."""
    async with Intake(services, request) as intake:
        await intake.receive(events)
        verified = await intake.complete()
        assert intake.stage is not None
        digest = await intake.stage.seal()
        repeated = await _answer_again(services, request, verified, digest)
        if repeated is not None:
            return Uploaded(repeated, verified.signer)
        wanted = Wanted(request.cloud, request.requested, verified.spec, intake.filename)
        payer = payer_of(verified.grant, request.caller)
        draft = await judge(services, wanted, payer, intake.stage.key, intake.stage.path, digest)
        draft = replace(draft, idempotency_key=request.idempotency_key)
        # The last act is not to be torn in the middle: a cancelled request lets it run to its own end.
        settle = _settle(services, verified, draft, intake.release(), request.caller)
        settling = asyncio.ensure_future(counted(services, settle))
        return Uploaded(await asyncio.shield(settling), verified.signer)


async def _answer_again(
    services: Services, request: UploadRequest, verified: Verified, digest: Digest
) -> Committed | None:
    """The stored answer, or None when there is none; a refusal for other bytes is audited."""
    grant, spec = verified.grant, verified.spec
    if request.idempotency_key is None:
        return None
    judge_content(digest, spec, services.limits.max_bytes(request.requested, spec))
    reply = await services.database.find_reply(grant.key, request.idempotency_key)
    if reply is None:
        return None
    try:
        return reply.repeat(digest.sha256)
    except GrantRefused as refusal:
        await record_refusal(services, grant, refusal.code, request.caller)
        raise


async def _settle(services: Services, verified: Verified, draft: Draft, stage: Stage, caller: Caller) -> Committed:
    """Make the bytes durable, then commit.

    A definite refusal deletes the bytes. An unknown outcome deletes nothing: reading back may tell that the
    commit happened; else the sweeper finds out later.
    """
    try:
        await stage.publish(stored_type(draft.facts))
        with services.metrics.committing():
            committed = await services.database.commit(verified.grant, draft, caller)
    except OutcomeUnknown as unknown:
        return await read_back_upload(services, verified.grant, draft, unknown)
    except (Refused, Unavailable) as error:
        await stage.discard()
        if isinstance(error, GrantRefused):
            await record_refusal(services, verified.grant, error.code, caller)
        raise
    await drop_unneeded(services, committed)
    return committed


async def read_back_upload(services: Services, grant: Grant, draft: Draft, unknown: OutcomeUnknown) -> Committed:
    """As `read_back`; a repeat may have been answered by another upload's commit."""
    with suppress(Unavailable):
        if draft.idempotency_key is not None:
            reply = await services.database.find_reply(grant.key, draft.idempotency_key)
            if reply is not None and reply.sha256 == draft.digest.sha256:
                return replace(reply.committed, replayed=reply.committed.asset.blob_key != draft.blob_key)
    return await read_back(services, draft.blob_key, unknown)


async def counted(services: Services, settle: Awaitable[Committed]) -> Committed:
    """What was committed, also when nobody waits for the answer any more."""
    committed = await settle
    if not committed.replayed:
        services.metrics.stored()
    return committed


async def drop_unneeded(services: Services, committed: Committed) -> None:
    """Delete the blob that no row names any more; should this fail, the sweeper finds it."""
    if committed.unneeded_blob is not None:
        with suppress(Unavailable):
            await services.blobs.delete(committed.unneeded_blob)


async def read_back(services: Services, blob_key: str, unknown: OutcomeUnknown) -> Committed:
    """What a commit without an answer came to; while that cannot be read, it stays unknown."""
    with suppress(Unavailable):
        asset = await services.database.find_commit(blob_key)
        if asset is not None:
            return Committed(asset)
    raise unknown
