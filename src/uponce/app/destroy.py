"""Delete one asset: authorise → one transaction that spends the signature and drops the row → only then the bytes.

The transaction alone decides, as for an upload. What breaks before it changes nothing; what breaks after it leaves
bytes that no row names, which the sweeper finds.
"""

from contextlib import suppress

from uponce.app.authorise import Verified, record_refusal, verify_signed
from uponce.app.services import Services
from uponce.app.sign import mint
from uponce.app.signed_calls import SignedCall, admit
from uponce.app.unbroken import unbroken
from uponce.core.errors import GrantRefused, MissingParameter, Unavailable
from uponce.core.parameters import Call
from uponce.core.values import ApiKey, AssetName, Caller


async def destroy(services: Services, request: SignedCall) -> bool:
    """Delete an asset by signed fields. Return whether there was such an asset.

    A deletion uses its signature as an upload does, once for a key whose signatures work once. A deletion that finds
    no asset uses nothing. After OutcomeUnknown the asset may be gone, and its bytes are not touched. A repeat shows
    the outcome.
    """
    verified = await admit(services, request, Call.DESTROY)
    public_id = verified.spec.naming.public_id
    if public_id is None:
        raise MissingParameter("Missing required parameter - public_id")
    name = AssetName(request.cloud, request.resource_type, verified.spec.type, public_id)
    return await unbroken(_settle(services, verified, name, request.caller))


async def drop_asset(services: Services, key: ApiKey, name: AssetName, caller: Caller) -> bool:
    """Delete an asset for the server itself, under a signature of this key, whatever its scope."""
    fields = mint(key, {"public_id": name.public_id}, clock=services.clock, ids=services.ids, call=Call.DESTROY)
    return await _settle(services, await verify_signed(services, name.cloud, fields, Call.DESTROY), name, caller)


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
