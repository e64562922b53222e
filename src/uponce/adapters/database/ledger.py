"""Operations on the ledger: look a grant and its history up, list grants, revoke a grant."""

import base64
from collections.abc import Sequence

from uponce.adapters.database import commits
from uponce.adapters.database.failures import bad_cursor
from uponce.adapters.database.steps import Row, Rules, Runner, Steps, of_grant, operation, runs
from uponce.app.ports import Page, StoredReply
from uponce.core.signature import KEY_OCTETS, dated, timestamp_of
from uponce.core.values import AuditEvent, AuditRecord, Caller, Grant, GrantRecord, GrantStatus

_BEHIND_ALL = dated(2**40 - 1, b"")


@operation()
def find(_: float, key: bytes, forgotten: bool = False) -> Steps[GrantRecord | None]:
    # The audit is read first: then a use that another transaction commits in between has its row.
    noted = (yield [("recall_grant", {"grant_key": key})])[0][0] if forgotten else None
    (records,) = yield [commits.ask_grant(key)]
    if records or noted is None or (noted["uses"] == 0 and noted["revoked_at"] is None):
        return commits.first_grant(records)
    grant = Grant(key, noted["cloud"], noted["api_key"], timestamp_of(key), max(1, noted["uses"]), keep_until=0)
    return GrantRecord(grant, noted["uses"], noted["spent_at"], noted["revoked_at"])


@operation()
def find_reply(
    _: float, grant_key: bytes, idempotency_key: str, *, also_revoked: bool = False
) -> Steps[StoredReply | None]:
    name, values = commits.ask_reply(grant_key, idempotency_key)
    (rows,) = yield [("find_reply_also_revoked" if also_revoked else name, values)]
    return commits.reply_of(rows[0]) if rows else None


@operation()
def history(_: float, key: bytes, limit: int, before: int = 2**63 - 1) -> Steps[Sequence[AuditRecord]]:
    (rows,) = yield [("history", {"grant_key": key, "most": limit, "before": before})]
    return [_audit_of(row) for row in reversed(rows)]


@operation()
def newest_moment(_: float) -> Steps[int | None]:
    ((row,),) = yield [("newest_moment", {})]
    moment: int | None = row["moment"]
    return moment


@operation(first="unsorted")
def page(
    _: float, cloud: str, *, api_key: str | None, status: GrantStatus | None, limit: int, cursor: str | None
) -> Steps[Page[GrantRecord]]:
    before = _parsed(cursor)
    name = f"grants{f'_{status}' if status else ''}_of_{'cloud' if api_key is None else 'key'}"
    values = {"cloud": cloud, "api_key": api_key, "before": before, "timestamp": timestamp_of(before)}
    (rows,) = yield [(name, values | {"most": limit + 1})]  # the surplus row only shows that there is a next page
    records = tuple(commits.grant_of(row) for row in rows[:limit])
    if len(rows) <= limit:
        return Page(records, None)
    return Page(records, base64.urlsafe_b64encode(records[-1].grant.key).decode().rstrip("="))


def _parsed(cursor: str | None) -> bytes:
    """Return the key of the grant after which a page begins. Raise InvalidParameter for any other cursor."""
    if cursor is None:
        return _BEHIND_ALL
    try:
        key = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except ValueError:
        key = b""
    if len(key) != KEY_OCTETS:
        raise bad_cursor()
    return key


@operation(rules=Rules.SHARED, grouped=True, locks=lambda grant, caller: (of_grant(grant.key),))
def revoke(now: float, grant: Grant, caller: Caller) -> Steps[GrantRecord]:
    (changed,) = yield [("revoke_grant", commits.grant_params(grant, now))]
    asks = [commits.ask_grant(grant.key)]
    if changed:
        asks.append(("write_audit", commits.audit_params(grant, AuditRecord(int(now), AuditEvent.REVOKED, caller))))
    records, *_ = yield asks
    return commits.grant_of(records[0])


def _audit_of(row: Row) -> AuditRecord:
    return AuditRecord(
        at=row["at"],
        event=AuditEvent(row["event"]),
        caller=Caller(row["address"], row["request_id"]),
        code=row["code"],
        asset_id=row["asset_id"],
        public_id=row["public_id"],
        count=row["count"],
        id=row["id"],
    )


class LedgerMethods(Runner):
    find_grant = runs(find)
    confirm_grant = runs(find, confirms=True)
    list_grants = runs(page)
    revoke_grant = runs(revoke)
    confirm_reply = runs(find_reply, confirms=True)  # before the next line, which hides the operation of this name
    find_reply = runs(find_reply)
    history = runs(history)
    newest_moment = runs(newest_moment)
