"""Calls other than uploads, of a cloud that has an upstream. uponce authorises them; the upstream answers them."""

import re
from collections.abc import Mapping, Sequence

from uponce.app.authorise import (
    Verified,
    check_grant_fresh,
    record_refusal,
    refuse_spent,
    require_credentials,
    verify_signed,
)
from uponce.app.ports import AdminCall, UpstreamReply
from uponce.app.relaying.relay import forwarded, told
from uponce.app.services import Services
from uponce.core.errors import InvalidSignature, OutcomeUnknown, ScopeDenied, UpstreamUnavailable
from uponce.core.parameters import OWN, PARAMETERS, Call, unknown
from uponce.core.relaying import Forwarded, signed_by
from uponce.core.signature import bare_name, collect
from uponce.core.upstream import passed_on, signed
from uponce.core.values import Caller, KeyScope, KeyUses, Upstream

# pycloudinary 1.46.3 signs these two with all calls except these three.
_NOT_ALWAYS_SIGNED = frozenset({"notification_url", "batch_id"})
_OF_CALLS = re.compile("[^/]+/(tags|context|metadata)")
# A signature with one of these is for an upload, and no other call would obey it.
_OF_UPLOADS = frozenset(name for name in OWN if PARAMETERS[name].calls == (Call.UPLOAD,))


async def ask(services: Services, upstream: Upstream, path: str, asked: AdminCall) -> Forwarded:
    """Return the upstream's answer to a call with HTTP Basic. The caller has checked the client's credentials.

    The call goes on unchanged, with the upstream's credentials. OutcomeUnknown: the upstream may have done it.
    """
    return _answer(await services.upstream.call(upstream, path, asked), changes=asked.method != "GET")


async def act_signed(
    services: Services, upstream: Upstream, cloud: str, path: str, sent: Sequence[tuple[str, str]], caller: Caller
) -> Forwarded:
    """Return the upstream's answer to a call with signed fields, such as a deletion. uponce signs it for the upstream.

    The key that signed the call signs the answer, if the answer has a signature.

    `sent` are the fields in order of arrival. The upstream gets them in their form: a list stays a list. Raise
    ScopeDenied unless their key is one for servers: uponce cannot spend a signature in one step with an action of
    another system. Raise UnknownParameter for a parameter of uponce's own uploads, and SignatureRevoked for a revoked
    signature. OutcomeUnknown: the upstream may have done it.
    """
    params = collect(sent)
    require_credentials(params)
    verified = await _verify(services, cloud, path, params)
    if found := _OF_UPLOADS & params.keys():
        raise unknown(min(found))
    check_grant_fresh(services, verified)
    key = verified.key
    if key.scope is not KeyScope.ALL or key.uses is not KeyUses.UNLIMITED:
        await record_refusal(services, verified.grant, ScopeDenied.code, caller)
        raise ScopeDenied(
            f"API key {key.api_key} only uploads. For other calls of a cloud with an upstream, sign with a key of "
            "scope all and unlimited uses (`uponce keys create --scope all --uses unlimited`), on your server only."
        )
    await refuse_spent(services, verified.grant, caller)
    fields = passed_on(params)
    proof = signed(upstream, fields, int(services.clock.now()))
    kept = fields.keys() - proof.keys()
    form = [(name, value) for name, value in sent if bare_name(name) in kept]
    reply = await services.upstream.post(upstream, path, [*form, *proof.items()])
    answer = _answer(reply, changes=True)
    # `explicit` answers as an upload does. An answer without a signature gets none.
    return signed_by(verified.signer, answer) if "signature" in (reply.document or {}) else answer


async def _verify(services: Services, cloud: str, path: str, params: Mapping[str, str]) -> Verified:
    """Return what `verify_signed` returns. With a few calls, some SDKs send parameters that they do not sign.

    These parameters are the notification URL and the batch id. The upstream accepts both without a signature.
    """
    bare = {name: value for name, value in params.items() if name not in _NOT_ALWAYS_SIGNED}
    try:
        return await verify_signed(services, cloud, params, None)
    except InvalidSignature:
        if bare == params or not _OF_CALLS.fullmatch(path):
            raise
    return await verify_signed(services, cloud, bare, None)


def _answer(reply: UpstreamReply, *, changes: bool) -> Forwarded:
    """Return the answer. One without JSON, or with a status that HTTP does not have, is of a server in between.

    Then what `changes` something may have been done.
    """
    if reply.document is not None and 200 <= reply.status < 600:
        return forwarded(reply, 0)
    if changes:
        raise OutcomeUnknown(
            "The upstream did not answer as expected. It may have carried the request out. Look there before you send "
            "the request again.",
            detail=told(reply),
            retry_after=10,
        )
    raise UpstreamUnavailable("The upstream did not answer as expected. Send the request again.", detail=told(reply))
