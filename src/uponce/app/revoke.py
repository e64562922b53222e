"""Revoke one signature before it is spent."""

from collections.abc import Mapping

from uponce.app.authorise import verify_signed
from uponce.app.browse import check_reach, find_known
from uponce.app.services import Services
from uponce.core.values import ApiKey, Caller, GrantRecord


async def revoke_signed(services: Services, owner: ApiKey, fields: Mapping[str, str], caller: Caller) -> GrantRecord:
    """Revoke a signature by its signed fields, also if no request has used it yet. Return its record."""
    verified = await verify_signed(services, owner.cloud, fields, call=None)
    check_reach(owner, verified.grant)
    return await services.database.revoke_grant(verified.grant, caller)


async def revoke_known(services: Services, owner: ApiKey, grant_id: str, caller: Caller) -> GrantRecord:
    """Revoke a grant in the ledger by its id. Return its record."""
    record = await find_known(services, owner, grant_id)
    return await services.database.revoke_grant(record.grant, caller)
