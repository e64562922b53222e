"""A call with signed fields that changes an asset. This module decides whether the sender may make the call."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from uponce.app.authorise import Verified, check_grant_fresh, record_refusal, require_credentials, verify_signed
from uponce.app.services import Services
from uponce.app.sign import mint
from uponce.core.errors import ScopeDenied
from uponce.core.parameters import UNSIGNED, Call, check_route
from uponce.core.values import ApiKey, Caller, KeyScope, ResourceType


@dataclass(frozen=True, slots=True)
class SignedCall:
    """A call before it is verified: cloud and resource type of its URL, its fields, and its sender."""

    cloud: str
    resource_type: ResourceType
    fields: Mapping[str, str]
    caller: Caller


async def admit(services: Services, request: SignedCall, call: Call) -> Verified:
    """Return whose grant the fields are. The grant is fresh, and its key has scope all.

    Raise ScopeDenied for a signature of a key of upload scope, whatever it signs: browsers hold those.
    """
    require_credentials(request.fields)
    verified = await verify_signed(services, request.cloud, request.fields, call)
    check_route(request.fields, request.cloud, request.resource_type)
    check_grant_fresh(services, verified)  # first: a signature that is long stale must not write to the audit
    if verified.key.scope is not KeyScope.ALL:
        await record_refusal(services, verified.grant, ScopeDenied.code, request.caller)
        raise ScopeDenied(
            f"API key {verified.key.api_key} has upload scope: its signatures upload, and never delete. Sign with a "
            "key of scope all (`uponce keys create --scope all`), on your server only."
        )
    return verified


def signed_by(services: Services, key: ApiKey, request: SignedCall, call: Call) -> SignedCall:
    """Return the call with the signature that uponce makes for a caller that knows the key's secret.

    So the call is dated, fenced and audited as any other, under its own signature.
    """
    check_route(request.fields, request.cloud, request.resource_type)
    params = {name: value for name, value in request.fields.items() if name not in UNSIGNED}
    return replace(request, fields=mint(key, params, clock=services.clock, ids=services.ids, call=call))
