"""Look up the state of signatures, and revoke a signature before it is spent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from uponce.app.authorise import verify_signed
from uponce.app.ports import Page
from uponce.app.services import Services
from uponce.core.errors import NotFound, ScopeDenied
from uponce.core.values import ApiKey, AuditRecord, Caller, Grant, GrantRecord, GrantStatus, KeyScope

HISTORY_LIMIT = 500
_NEWEST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class SignatureState:
    """A grant, its record in the ledger, and a page of its history, oldest row first.

    `expires_at` is None if only the ledger knows the grant. `earlier` is None if the history has no earlier rows. Else
    they are those before this id.
    """

    record: GrantRecord
    expires_at: int | None
    history: Sequence[AuditRecord]
    earlier: int | None


async def show_signed(
    services: Services, caller: ApiKey, fields: Mapping[str, str], limit: int = HISTORY_LIMIT, before: int = _NEWEST
) -> SignatureState:
    """Return the state of a signature by its signed fields, also if no request has used it yet.

    Its history has the newest `limit` rows whose id is less than `before`.
    """
    verified = await verify_signed(services, caller.cloud, fields, call=None)
    check_reach(caller, verified.grant)
    lifetime = min(verified.key.window, verified.spec.valid_for or verified.key.window)
    ends, mark = verified.grant.timestamp + lifetime, verified.key.watermark
    if mark is not None and verified.grant.timestamp <= mark:  # by a fence, it may have ended before its time
        ends = min(ends, int(services.clock.now()))
    record = await services.database.find_grant(verified.grant.key, forgotten=True)
    record = record or GrantRecord(verified.grant, uses=0, spent_at=None, revoked_at=None)
    return await _state(services, record, ends, limit, before)


async def show_known(
    services: Services, caller: ApiKey, grant_id: str, limit: int = HISTORY_LIMIT, before: int = _NEWEST
) -> SignatureState:
    """Return the state of a grant by its id, as `show_signed` does.

    Raise NotFound unless it is in the ledger or in the audit, and in the caller's reach.
    """
    return await _state(services, await find_known(services, caller, grant_id), None, limit, before)


async def _state(
    services: Services, record: GrantRecord, expires_at: int | None, limit: int, before: int
) -> SignatureState:
    rows = await services.database.history(record.grant.key, limit + 1, before)  # the surplus row shows that it exists
    shown = rows[-limit:]
    return SignatureState(record, expires_at, shown, shown[0].id if len(rows) > limit else None)


async def find_known(services: Services, caller: ApiKey, grant_id: str) -> GrantRecord:
    record = await services.database.find_grant(_parse_id(grant_id), forgotten=True)
    if record is None or not in_reach(caller, record.grant):
        raise NotFound(
            f"The ledger has no signature {grant_id[:64]}. To look up an unused signature, send its signed fields."
        )
    return record


async def list_signatures(
    services: Services, caller: ApiKey, *, status: GrantStatus | None, limit: int, cursor: str | None
) -> Page[GrantRecord]:
    """Return a page of grants, newest first: those of the caller's key, or with scope all those of its cloud."""
    own = None if caller.scope is KeyScope.ALL else caller.api_key
    return await services.database.list_grants(caller.cloud, api_key=own, status=status, limit=limit, cursor=cursor)


def in_reach(caller: ApiKey, grant: Grant) -> bool:
    return grant.cloud == caller.cloud and (caller.scope is KeyScope.ALL or grant.api_key == caller.api_key)


def check_reach(caller: ApiKey, grant: Grant) -> None:
    if not in_reach(caller, grant):
        raise ScopeDenied(f"API key {caller.api_key} has upload scope: it sees and revokes its own signatures only.")


def _parse_id(grant_id: str) -> bytes:
    try:
        return bytes.fromhex(grant_id) if len(grant_id) == 64 else b""
    except ValueError:
        return b""


async def revoke_signed(services: Services, owner: ApiKey, fields: Mapping[str, str], caller: Caller) -> GrantRecord:
    """Revoke a signature by its signed fields, also if no request has used it yet. Return its record."""
    verified = await verify_signed(services, owner.cloud, fields, call=None)
    check_reach(owner, verified.grant)
    record = await services.database.find_grant(verified.grant.key, forgotten=True)
    return await _revoke(services, verified.grant, record, caller)


async def revoke_known(services: Services, owner: ApiKey, grant_id: str, caller: Caller) -> GrantRecord:
    """Revoke a grant in the ledger by its id. Return its record."""
    record = await find_known(services, owner, grant_id)
    return await _revoke(services, record.grant, record, caller)


async def _revoke(services: Services, grant: Grant, record: GrantRecord | None, caller: Caller) -> GrantRecord:
    if record is not None and record.status in (GrantStatus.USED, GrantStatus.REVOKED):  # perhaps by the audit alone
        return record
    return await services.database.revoke_grant(grant, caller)
