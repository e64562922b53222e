"""Look up the state of signatures, and revoke a signature before it is spent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from uponce.app.authorise import Verified, verify_signed
from uponce.app.ports import Page
from uponce.app.services import Services
from uponce.core.errors import NotFound, ScopeDenied
from uponce.core.signature import check_not_future, utc
from uponce.core.values import ApiKey, AuditRecord, Caller, Grant, GrantRecord, GrantStatus, KeyScope

HISTORY_LIMIT = 500
_NEWEST = 2**63 - 1

Named = str | Mapping[str, str]  # the id of a grant, or all signed fields


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


async def show_signature(
    services: Services, owner: ApiKey, named: Named, limit: int = HISTORY_LIMIT, before: int = _NEWEST
) -> SignatureState:
    """Return the state of a signature. Signed fields find it also if no request has used it yet.

    Its history has the newest `limit` rows whose id is less than `before`. Raise NotFound for an id that is neither in
    the ledger nor in the audit, or not in the owner's reach.
    """
    grant, record, ends = await _find(services, owner, named)
    rows = await services.database.history(grant.key, limit + 1, before)  # the surplus row shows that it exists
    shown = rows[-limit:]
    record = record or GrantRecord(grant, uses=0, spent_at=None, revoked_at=None)
    return SignatureState(record, ends, shown, shown[0].id if len(rows) > limit else None)


async def revoke_signature(services: Services, owner: ApiKey, named: Named, caller: Caller) -> GrantRecord:
    """Revoke a signature that `show_signature` would show. Return its record.

    Raise FutureTimestamp if no upload can use the signature yet. Its row would stay in the ledger until its time is
    over, perhaps for thousands of years. And PostgreSQL makes no partition for a time that has rows already.
    """
    grant, record, _ = await _find(services, owner, named)
    skew = services.limits.skew
    if record is None:
        opens = f"uponce refuses this signature until {utc(grant.timestamp - skew)}. Revoke it then, or rotate its key."
        check_not_future(grant.timestamp, now=services.clock.now(), skew=skew, cure=opens)
    elif record.status in (GrantStatus.USED, GrantStatus.REVOKED):  # perhaps by the audit alone
        return record
    return await services.database.revoke_grant(grant, caller)


async def list_signatures(
    services: Services, caller: ApiKey, *, status: GrantStatus | None, limit: int, cursor: str | None
) -> Page[GrantRecord]:
    """Return a page of grants, newest first: those of the caller's key, or with scope all those of its cloud."""
    own = None if caller.scope is KeyScope.ALL else caller.api_key
    return await services.database.list_grants(caller.cloud, api_key=own, status=status, limit=limit, cursor=cursor)


async def _find(services: Services, owner: ApiKey, named: Named) -> tuple[Grant, GrantRecord | None, int | None]:
    """Return the grant, its record, and the end of its time unless only the ledger knows the grant."""
    if isinstance(named, str):
        record = await services.database.confirm_grant(_parse_id(named), forgotten=True)
        if record is None or not _in_reach(owner, record.grant):
            raise NotFound(
                f"The ledger has no signature {named[:64]}. To look up an unused signature, send its signed fields."
            )
        return record.grant, record, None
    verified = await verify_signed(services, owner.cloud, named, call=None)
    if not _in_reach(owner, verified.grant):
        raise ScopeDenied(f"API key {owner.api_key} has upload scope: it sees and revokes its own signatures only.")
    record = await services.database.confirm_grant(verified.grant.key, forgotten=True)
    return verified.grant, record, _end(verified, services.clock.now())


def _parse_id(grant_id: str) -> bytes:
    try:
        return bytes.fromhex(grant_id) if len(grant_id) == 64 else b""
    except ValueError:
        return b""


def _in_reach(owner: ApiKey, grant: Grant) -> bool:
    return grant.cloud == owner.cloud and (owner.scope is KeyScope.ALL or grant.api_key == owner.api_key)


def _end(verified: Verified, now: float) -> int:
    lifetime = min(verified.key.window, verified.spec.valid_for or verified.key.window)
    end, mark = verified.grant.timestamp + lifetime, verified.key.watermark
    if mark is not None and verified.grant.timestamp <= mark:  # by a fence, it may have ended before its time
        end = min(end, int(now))
    return end
