"""Accept one upload: take it in → inspect → judge → make it durable → commit. The commit is the only arbiter.

A repeat of an upload that was answered already, told by its Idempotency-Key, is taken in and compared, and no more.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace

from uponce.app.authorise import Verified
from uponce.app.intake import Event, Intake, UploadRequest
from uponce.app.ports import Committed, Draft, Stage
from uponce.app.services import Services
from uponce.core.errors import GrantRefused, OutcomeUnknown, Refused, RequestTooSlow, Unavailable
from uponce.core.naming import RANDOM_LENGTH, UNIQUE_SUFFIX_LENGTH, split_filename
from uponce.core.policy import judge_content, judge_media
from uponce.core.values import AssetName, Caller, Digest, Grant, MediaFacts


@dataclass(frozen=True, slots=True)
class Uploaded:
    """What to answer with: the asset, how it came about, and what the request was verified with."""

    committed: Committed
    verified: Verified


async def upload(services: Services, request: UploadRequest, events: AsyncIterator[Event]) -> Uploaded:
    """One attempt. Whatever goes wrong before the commit spends nothing and leaves nothing behind."""
    async with Intake(services, request) as intake:
        await _take_in(services, intake, events)
        verified = await intake.complete()
        digest = await _seal(intake, verified)
        repeated = await _answer_again(services, request, verified.grant, digest)
        if repeated is not None:
            return Uploaded(repeated, verified)
        draft = await _inspect(services, request, intake, verified, digest)
        # The last act is not to be torn in the middle: a cancelled request lets it run to its own end.
        settling = asyncio.ensure_future(_settle(services, verified, draft, intake.release(), request.caller))
        return Uploaded(await asyncio.shield(settling), verified)


async def _take_in(services: Services, intake: Intake, events: AsyncIterator[Event]) -> None:
    """Feed the intake under its deadlines: a shorter one while the upload is unverified."""
    limits, loop = services.limits, asyncio.get_running_loop()
    begun = loop.time()
    try:
        async with asyncio.timeout(limits.max_upload_seconds) as deadline:
            async for event in events:
                await intake.take(event)
                if not isinstance(event, bytes):
                    unverified = intake.stage is not None and intake.verified is None
                    seconds = limits.unverified_seconds if unverified else limits.max_upload_seconds
                    deadline.reschedule(begun + seconds)
    except TimeoutError:
        raise RequestTooSlow(
            f"The upload took longer than {limits.max_upload_seconds} seconds, or {limits.unverified_seconds} when "
            "the file precedes its signature. Send the fields first, or a smaller file."
        ) from None


async def _seal(intake: Intake, verified: Verified) -> Digest:
    assert intake.stage is not None
    digest = await intake.stage.seal()
    judge_content(digest, verified.spec, intake.limit)
    return digest


async def _answer_again(services: Services, request: UploadRequest, grant: Grant, digest: Digest) -> Committed | None:
    """The stored answer, or None when there is none; a refusal for other bytes is audited."""
    if request.idempotency_key is None:
        return None
    reply = await services.database.find_reply(grant.key, request.idempotency_key)
    if reply is None:
        return None
    try:
        return reply.repeat(digest.sha256)
    except GrantRefused as refusal:
        await services.database.record_refusal(grant, refusal.code, request.caller)
        raise


async def _inspect(
    services: Services, request: UploadRequest, intake: Intake, verified: Verified, digest: Digest
) -> Draft:
    stage = intake.stage
    assert stage is not None
    facts = await services.inspector.inspect(stage.path, request.requested)
    judge_media(facts, digest, intake.filename, verified.spec, services.limits)
    return _draft(services, request, verified, stage.key, digest, facts, intake.filename)


def _draft(
    services: Services,
    request: UploadRequest,
    verified: Verified,
    blob_key: str,
    digest: Digest,
    facts: MediaFacts,
    filename: str | None,
) -> Draft:
    spec, ids = verified.spec, services.ids
    public_id = spec.naming.name(facts.kind, filename, ids.base36(RANDOM_LENGTH), ids.base36(UNIQUE_SUFFIX_LENGTH))
    original = split_filename(spec.naming.filename_override or filename or "")[0]
    return Draft(
        name=AssetName(request.cloud, facts.kind, spec.type, public_id),
        asset_id=ids.hex(32),
        version_id=ids.hex(32),
        blob_key=blob_key,
        digest=digest,
        facts=facts,
        tags=spec.tags,
        context=spec.context,
        original_filename=None if spec.discard_original_filename else original or None,
        overwrite=spec.overwrite,
        idempotency_key=request.idempotency_key,
    )


async def _settle(services: Services, verified: Verified, draft: Draft, stage: Stage, caller: Caller) -> Committed:
    """Make the bytes durable, then commit.

    A definite refusal deletes the bytes. An unknown outcome deletes nothing: reading back may tell that the
    commit happened; else the sweeper finds out later.
    """
    try:
        await stage.publish()
        committed = await services.database.commit(verified.grant, draft, caller)
    except OutcomeUnknown as unknown:
        return await _read_back(services, verified.grant, draft, unknown)
    except (Refused, Unavailable) as error:
        await stage.discard()
        if isinstance(error, GrantRefused):
            await services.database.record_refusal(verified.grant, error.code, caller)
        raise
    if committed.unneeded_blob is not None:
        # No row names it any more; should this fail, the sweeper finds it.
        with suppress(Unavailable):
            await services.blobs.delete(committed.unneeded_blob)
    return committed


async def _read_back(services: Services, grant: Grant, draft: Draft, unknown: OutcomeUnknown) -> Committed:
    """What a commit without an answer came to; while that cannot be read, it stays unknown."""
    with suppress(Unavailable):
        if draft.idempotency_key is not None:
            reply = await services.database.find_reply(grant.key, draft.idempotency_key)
            if reply is not None and reply.sha256 == draft.digest.sha256:
                return replace(reply.committed, replayed=reply.committed.asset.blob_key != draft.blob_key)
        asset = await services.database.find_commit(draft.blob_key)
        if asset is not None:
            return Committed(asset)
    raise unknown
