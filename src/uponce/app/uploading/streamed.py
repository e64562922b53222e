"""An upload whose bytes stream in: verify → receive → hash → inspect → judge → store → commit."""

from collections.abc import AsyncIterator
from functools import partial

from uponce.app.authorise import Admitted, UploadRequest, refusals_recorded
from uponce.app.ports import Committed, Draft, Publishable, Spooled
from uponce.app.relaying.held import HeldFile, send_spooled
from uponce.app.services import Services
from uponce.app.unbroken import unbroken
from uponce.app.uploading.intake import Event, Intake
from uponce.app.uploading.pipeline import Uploaded, answered, followed_up, inspect, judge, read_back_upload, settle
from uponce.core.formats import stored_type
from uponce.core.policy import judge_content
from uponce.core.relaying import Forwarded
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
        repeated = await answer_again(services, admitted, digest)
        if repeated is not None:
            return answered(repeated, verified.signer)
        if admitted.upstream is not None:
            return answered(await _pass_on(services, admitted, intake, body, digest), verified.signer)
        assert not isinstance(body, HeldFile)
        draft = await judge(services, admitted, body.key, body.path, digest)
        intake.release()
        committing = partial(commit, services, admitted, draft, body)
        return Uploaded(await unbroken(followed_up(services, committing)), verified.signer)


async def _pass_on(
    services: Services, admitted: Admitted, intake: Intake, body: Spooled | HeldFile, digest: Digest
) -> Forwarded:
    """Check what this server checks, let the upload complete in the upstream of its cloud, and return the answer."""
    judge_content(digest, admitted.requested, admitted.spec, services.limits)
    if not isinstance(body, HeldFile) and services.inspects:
        await inspect(services, admitted, body.path, digest)
    intake.release()
    return await unbroken(followed_up(services, partial(_relay, services, admitted, body, digest)))


async def _relay(services: Services, admitted: Admitted, body: Spooled | HeldFile, digest: Digest) -> Forwarded:
    try:
        async with refusals_recorded(services, admitted.grant, admitted.caller):
            if isinstance(body, HeldFile):
                return await body.finish(digest)
            return await send_spooled(services, admitted, digest, body.blocks())
    finally:
        await body.discard()


async def answer_again(services: Services, admitted: Admitted, digest: Digest) -> Committed | Forwarded | None:
    """Return the stored answer, or None. A refusal for other bytes goes to the audit."""
    grant = admitted.grant
    if admitted.idempotency_key is None:
        return None
    judge_content(digest, admitted.requested, admitted.spec, services.limits)
    reply = await services.database.confirm_reply(grant.key, admitted.idempotency_key)
    if reply is None:
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
