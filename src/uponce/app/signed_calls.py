"""Calls with signed fields that change an asset: whether the sender may make the call, and its effect.

A deletion: authorise → one transaction that spends the signature and deletes the row → only then the bytes. The
transaction alone decides, as for an upload. A failure before it changes nothing. A failure after it leaves bytes that
no row names, and the sweeper deletes them.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from uponce.app.authorise import (
    Verified,
    check_grant_fresh,
    check_route,
    record_refusal,
    refusals_recorded,
    verify_signed,
)
from uponce.app.services import Services
from uponce.app.sign import mint
from uponce.app.unbroken import unbroken
from uponce.core.errors import MissingParameter, ScopeDenied, Unavailable
from uponce.core.parameters import Call
from uponce.core.values import ApiKey, AssetName, Caller, KeyScope, ResourceType

log = logging.getLogger("uponce")


@dataclass(frozen=True, slots=True)
class SignedCall:
    """A call before it is verified: cloud and resource type of its URL, its fields, and its sender."""

    cloud: str
    resource_type: ResourceType
    fields: Mapping[str, str]
    caller: Caller


async def admit(services: Services, request: SignedCall, call: Call) -> Verified:
    """Return the verified fields. Their grant is fresh, and their key has scope all.

    Raise ScopeDenied for a signature of a key of upload scope, whatever it signs: browsers hold such signatures.
    """
    verified = await verify_signed(services, request.cloud, request.fields, call)
    check_route(request.fields, request.cloud, request.resource_type)
    check_grant_fresh(services, verified)  # first: a stale signature must not write to the audit
    if verified.key.scope is not KeyScope.ALL:
        await record_refusal(services, verified.grant, ScopeDenied.code, request.caller)
        raise ScopeDenied(
            f"API key {verified.key.api_key} has upload scope: its signatures upload, and never delete. Sign with a "
            "key of scope all (`uponce keys create --scope all`), on your server only."
        )
    return verified


async def destroy(services: Services, request: SignedCall) -> bool:
    """Delete an asset by signed fields. Return whether the asset existed.

    A deletion uses its signature as an upload does: once, for a key whose signatures work once. A deletion that finds
    no asset uses nothing. After OutcomeUnknown the asset may be gone, and its bytes stay. A repeat shows the outcome.
    """
    verified = await admit(services, request, Call.DESTROY)
    public_id = verified.spec.naming.public_id
    if public_id is None:
        raise MissingParameter("Missing required parameter - public_id")
    services.ownership.check()
    name = AssetName(request.cloud, request.resource_type, verified.spec.type, public_id)
    return await unbroken(_delete(services, verified, name, request.caller))


async def drop_asset(services: Services, key: ApiKey, name: AssetName, caller: Caller) -> bool:
    """Delete an asset on behalf of the server, under a signature of this key, whatever its scope."""
    fields = mint(key, {"public_id": name.public_id}, clock=services.clock, ids=services.ids, call=Call.DESTROY)
    return await _delete(services, await verify_signed(services, name.cloud, fields, Call.DESTROY), name, caller)


async def _delete(services: Services, verified: Verified, name: AssetName, caller: Caller) -> bool:
    async with refusals_recorded(services, verified.grant, caller):
        deleted = await services.database.delete(verified.grant, name, caller)
    if deleted is None:
        return False
    try:
        await services.blobs.delete(deleted.blob_key)
    except Unavailable as error:
        log.warning(
            "the bytes of a deleted asset stay until a sweep, blob %s: %s", deleted.blob_key, error.for_operator
        )
    return True
