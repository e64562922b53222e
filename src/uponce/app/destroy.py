"""Delete one asset: authorise → one transaction that spends the signature and drops the row → only then the bytes.

The transaction alone decides, as for an upload. What breaks before it changes nothing; what breaks after it leaves
bytes that no row names, which the sweeper finds.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from uponce.app.authorise import Verified, check_grant_fresh, record_refusal, require_credentials, verify_signed
from uponce.app.services import Services
from uponce.app.sign import mint
from uponce.core.errors import GrantRefused, MissingParameter, ScopeDenied, Unavailable
from uponce.core.parameters import UNSIGNED, Call, check_route
from uponce.core.values import ApiKey, AssetName, Caller, KeyScope, ResourceType


@dataclass(frozen=True, slots=True)
class DestroyRequest:
    """Its route, its collected fields, and who sends it."""

    cloud: str
    resource_type: ResourceType
    fields: Mapping[str, str]
    caller: Caller


async def destroy(services: Services, request: DestroyRequest) -> bool:
    """Delete an asset by signed fields. Return whether there was such an asset.

    Raise ScopeDenied for a signature of a key of upload scope, whatever it signs: browsers hold those. A deletion uses
    its signature as an upload does, once for a key whose signatures work once. A deletion that finds no asset uses
    nothing. After OutcomeUnknown the asset may be gone, and its bytes are not touched. A repeat shows the outcome.
    """
    require_credentials(request.fields)
    verified = await verify_signed(services, request.cloud, request.fields, Call.DESTROY)
    check_route(request.fields, request.cloud, request.resource_type)
    check_grant_fresh(services, verified)  # first: a signature that is long stale must not write to the audit
    await _check_scope(services, verified, request.caller)
    public_id = verified.spec.naming.public_id
    if public_id is None:
        raise MissingParameter("Missing required parameter - public_id")
    name = AssetName(request.cloud, request.resource_type, verified.spec.type, public_id)
    # Not to be torn in the middle: a cancelled request lets it run to its own end.
    settling = asyncio.ensure_future(_settle(services, verified, name, request.caller))
    return await asyncio.shield(settling)


async def destroy_as(services: Services, key: ApiKey, request: DestroyRequest) -> bool:
    """Do as `destroy` does for a caller that knows the key's secret: uponce signs on its behalf.

    So the deletion is dated, fenced and audited as any other, under its own signature.
    """
    check_route(request.fields, request.cloud, request.resource_type)
    params = {name: value for name, value in request.fields.items() if name not in UNSIGNED}
    signed = mint(key, params, clock=services.clock, ids=services.ids, call=Call.DESTROY)
    return await destroy(services, replace(request, fields=signed))


async def drop_asset(services: Services, key: ApiKey, name: AssetName, caller: Caller) -> bool:
    """Delete an asset for the server itself, under a signature of this key, whatever its scope. As `destroy_as`."""
    fields = mint(key, {"public_id": name.public_id}, clock=services.clock, ids=services.ids, call=Call.DESTROY)
    return await _settle(services, await verify_signed(services, name.cloud, fields, Call.DESTROY), name, caller)


async def _check_scope(services: Services, verified: Verified, caller: Caller) -> None:
    """Raise ScopeDenied for a key of upload scope, and write the try to the audit."""
    if verified.key.scope is KeyScope.ALL:
        return
    await record_refusal(services, verified.grant, ScopeDenied.code, caller)
    raise ScopeDenied(
        f"API key {verified.key.api_key} has upload scope: its signatures upload, and never delete. Sign with a key of "
        "scope all (`uponce keys create --scope all`), on your server only."
    )


async def _settle(services: Services, verified: Verified, name: AssetName, caller: Caller) -> bool:
    try:
        deleted = await services.database.delete(verified.grant, name, caller)
    except GrantRefused as refusal:
        await record_refusal(services, verified.grant, refusal.code, caller)
        raise
    if deleted is None:
        return False
    with suppress(Unavailable):  # the sweeper finds what is left
        await services.blobs.delete(deleted.blob_key)
    return True
