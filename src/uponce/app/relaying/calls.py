"""Calls that are no uploads, of a cloud that has an upstream: authorised here, answered there."""

from collections.abc import Mapping

from uponce.app.authorise import check_grant_fresh, require_credentials, verify_signed
from uponce.app.ports import UpstreamReply
from uponce.app.relaying.relay import forwarded
from uponce.app.services import Services
from uponce.core.errors import ScopeDenied, UpstreamUnavailable
from uponce.core.relaying import Forwarded
from uponce.core.upstream import passed_on, signed
from uponce.core.values import KeyScope, KeyUses, Upstream


async def read(services: Services, upstream: Upstream, path: str, query: Mapping[str, str]) -> Forwarded:
    """Return the upstream's answer to a read of its Admin API. The caller has checked who asks."""
    assert services.upstream is not None
    return _answer(await services.upstream.get(upstream, path, query))


async def act(services: Services, upstream: Upstream, path: str, params: Mapping[str, str]) -> Forwarded:
    """Let the upstream do what a server asks for, such as a deletion, under the upstream's own signature.

    The caller has checked who asks. OutcomeUnknown: it may have been done.
    """
    assert services.upstream is not None
    fields = passed_on(params)
    fields |= signed(upstream, fields, int(services.clock.now()))
    return _answer(await services.upstream.post(upstream, path, fields))


async def act_signed(
    services: Services, upstream: Upstream, cloud: str, path: str, params: Mapping[str, str]
) -> Forwarded:
    """Do as `act` does for signed parameters. Raise ScopeDenied unless their key is one for servers.

    A signature that works once cannot be spent for an action of another system, so uponce refuses those.
    """
    require_credentials(params)
    verified = await verify_signed(services, cloud, params, None)
    check_grant_fresh(services, verified)
    key = verified.key
    if key.scope is not KeyScope.ALL or key.uses is not KeyUses.UNLIMITED:
        raise ScopeDenied(
            f"API key {key.api_key} only uploads. For other calls of a cloud with an upstream, sign with a key of "
            "scope all and unlimited uses (`uponce keys create --scope all --uses unlimited`), on your server only."
        )
    return await act(services, upstream, path, params)


def _answer(reply: UpstreamReply) -> Forwarded:
    if reply.document is None:
        raise UpstreamUnavailable(
            "The upstream did not answer as expected. Send the request again.",
            detail=f"the upstream answered {reply.status}: {reply.body[:200]!r}",
        )
    return forwarded(reply, 0)
