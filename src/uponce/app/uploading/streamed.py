"""An upload in one request that goes alone: verify → receive → hash → inspect → judge → store → commit, or pass it on.

`upload` takes one whose bytes stream in. `upload_whole` takes an ordinary small one that has arrived, to a store far
away. No file of this server ever has its bytes. In a group it would wait for the slowest answer of the store, and the
thread that commits for the group too.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

from uponce.app.attempts import Attempt, network_of
from uponce.app.authorise import (
    Admitted,
    UploadRequest,
    Verified,
    authorise,
    check_grant_fresh,
    check_scripted,
    refusals_recorded,
)
from uponce.app.ports import Committed, Draft, Publishable, Spooled
from uponce.app.relaying.held import HeldFile, send_spooled
from uponce.app.services import Services
from uponce.app.unbroken import unbroken
from uponce.app.uploading.intake import Event, Intake
from uponce.app.uploading.pipeline import (
    Arrival,
    MustStream,
    Uploaded,
    answered,
    digest_of,
    draft_of,
    examine,
    followed_up,
    read_back_upload,
    settle,
)
from uponce.core.formats import stored_type
from uponce.core.policy import judge_content, judge_media
from uponce.core.relaying import Forwarded
from uponce.core.signature import collect_known
from uponce.core.values import Digest


async def upload(services: Services, request: UploadRequest, events: AsyncIterator[Event]) -> Uploaded | Forwarded:
    """Make one attempt. Return what it stored, or the answer of the upstream of its cloud.

    A failure before the commit spends nothing and leaves nothing.
    """
    async with Intake(services, request) as intake:
        await intake.receive(events)
        verified, body = await intake.complete()
        digest = await body.seal()
        admitted = Admitted.of(intake.request, verified, intake.filename)
        repeated = await _answer_again(services, verified, admitted, digest)
        if repeated is not None:
            return answered(repeated, verified.signer)
        facts = await examine(services, admitted, None if isinstance(body, HeldFile) else body.path, digest)
        completing: Callable[[], Awaitable[Committed | Forwarded]]
        if admitted.upstream is not None:
            completing = partial(_relay, services, admitted, body, digest)
        else:
            assert facts is not None and not isinstance(body, HeldFile)
            draft = draft_of(services, admitted, body.key, digest, facts)
            completing = partial(commit, services, admitted, draft, body)
        intake.release()
        return answered(await unbroken(followed_up(services, completing)), verified.signer)


async def upload_whole(services: Services, arrival: Arrival) -> Uploaded | Forwarded:
    """Return what a small upload stored. A failure before the commit spends nothing and leaves nothing.

    Raise MustStream if its cloud has an upstream, or if the bodies that wait for the store fill their memory.
    """
    request = arrival.request
    verified = await authorise(services, request, collect_known(arrival.fields))
    if verified.key.upstream is not None:
        raise MustStream
    check_scripted(verified.spec, request)
    attempt = Attempt(network_of(request.caller.address), asyncio.get_running_loop().time())
    with services.attempts.of_grant(attempt, verified.grant, services.limits):
        return await unbroken(_store_from_memory(services, arrival, verified))


async def _store_from_memory(services: Services, arrival: Arrival, verified: Verified) -> Uploaded | Forwarded:
    assert services.hold_small is not None
    # The whole body is in memory, not the file alone.
    size, memory = max(len(arrival.data), arrival.request.length or 0), services.attempts.small
    if not memory.take(size):
        raise MustStream
    try:
        admitted, digest = Admitted.of(arrival.request, verified, arrival.filename), await digest_of(arrival)
        repeated = await _answer_again(services, verified, admitted, digest)
        if repeated is not None:
            return answered(repeated, verified.signer)
        judge_content(digest, admitted.requested, admitted.spec, services.limits)
        judge_media(arrival.facts, digest, arrival.filename, admitted.spec, services.limits)
        blob = services.hold_small((arrival.data, digest))
        draft = draft_of(services, admitted, blob.key, digest, arrival.facts)
        completing = partial(commit, services, admitted, draft, blob)
        return answered(await followed_up(services, completing), verified.signer)
    finally:
        memory.give_back(size)


async def _answer_again(
    services: Services, verified: Verified, admitted: Admitted, digest: Digest
) -> Committed | Forwarded | None:
    """Return the stored answer, or None. A refusal for other bytes goes to the audit.

    Raise StaleRequest if a signature that has expired was only admitted for an answer that is purged since.
    """
    grant = admitted.grant
    if admitted.idempotency_key is None:
        return None
    judge_content(digest, admitted.requested, admitted.spec, services.limits)
    reply = await services.database.confirm_reply(grant.key, admitted.idempotency_key)
    if reply is None:
        if verified.repeats:
            check_grant_fresh(services, verified)
        return None
    async with refusals_recorded(services, grant, admitted.caller):
        return reply.repeat(digest.sha256)


async def commit(services: Services, admitted: Admitted, draft: Draft, blob: Publishable) -> Committed:
    """Make the bytes durable, commit, and return the result. A refusal of the grant goes to the audit."""
    grant, caller = admitted.grant, admitted.caller

    async def publish_and_commit() -> Committed:
        await blob.publish(stored_type(draft.asset.facts))
        with services.metrics.committing():
            return await services.database.commit(grant, draft, caller)

    async with refusals_recorded(services, grant, caller):
        return await settle(publish_and_commit, partial(read_back_upload, services, grant, draft), blob.discard)


async def _relay(services: Services, admitted: Admitted, body: Spooled | HeldFile, digest: Digest) -> Forwarded:
    """Let the upload complete in the upstream of its cloud, and return the answer. A refusal goes to the audit."""
    try:
        async with refusals_recorded(services, admitted.grant, admitted.caller):
            if isinstance(body, HeldFile):
                return await body.finish(digest)
            return await send_spooled(services, admitted, digest, body.blocks())
    finally:
        await body.discard()
