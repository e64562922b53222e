"""An ordinary small upload that has arrived whole, to a store far away: verify → hash → judge → store → commit.

No file of this server ever has its bytes. Each upload goes alone: a group would wait for the slowest answer of the
store, and the thread that commits for it.
"""

import asyncio
from functools import partial

from uponce.app.attempts import Attempt, network_of
from uponce.app.authorise import Admitted, Verified, authorise, check_scripted
from uponce.app.services import Services
from uponce.app.unbroken import unbroken
from uponce.app.uploading import streamed
from uponce.app.uploading.pipeline import Arrival, MustStream, Uploaded, answered, digest_of, draft_of, followed_up
from uponce.core.policy import judge_content, judge_media
from uponce.core.relaying import Forwarded
from uponce.core.signature import collect_known


async def upload_whole(services: Services, arrival: Arrival) -> Uploaded | Forwarded:
    """Return what it stored. A failure before the commit spends nothing and leaves nothing.

    Raise MustStream if its cloud has an upstream, or if the bodies that wait for the store fill their memory.
    """
    request = arrival.request
    verified = await authorise(services, request, collect_known(arrival.fields))
    if verified.key.upstream is not None:
        raise MustStream
    check_scripted(verified.spec, request)
    attempt = Attempt(network_of(request.caller.address), asyncio.get_running_loop().time())
    with services.attempts.of_grant(attempt, verified.grant, services.limits):
        return await unbroken(_held(services, arrival, verified))


async def _held(services: Services, arrival: Arrival, verified: Verified) -> Uploaded | Forwarded:
    # The whole body is in memory, not the file alone.
    size, memory = max(len(arrival.data), arrival.request.length or 0), services.attempts.small
    if not memory.take(size):
        raise MustStream
    try:
        return await _stored(services, arrival, verified)
    finally:
        memory.give_back(size)


async def _stored(services: Services, arrival: Arrival, verified: Verified) -> Uploaded | Forwarded:
    assert services.hold_small is not None
    admitted, digest = Admitted.of(arrival.request, verified, arrival.filename), await digest_of(arrival)
    repeated = await streamed.answer_again(services, admitted, digest)
    if repeated is not None:
        return answered(repeated, verified.signer)
    judge_content(digest, admitted.requested, admitted.spec, services.limits)
    judge_media(arrival.facts, digest, arrival.filename, admitted.spec, services.limits)
    blob = services.hold_small((arrival.data, digest))
    draft = draft_of(services, admitted, blob.key, digest, arrival.facts)
    committing = partial(streamed.commit, services, admitted, draft, blob)
    return Uploaded(await followed_up(services, committing), verified.signer)
