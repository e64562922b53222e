"""Operations on the ledger: spend a grant with an upload or a deletion, revoke it, record refusals, look it up."""

import base64
from collections.abc import Sequence
from dataclasses import replace

from uponce.adapters.database import outbox
from uponce.adapters.database.catalog import ask_asset, asset_of, asset_params, publication, refuse_condemned
from uponce.adapters.database.failures import bad_cursor
from uponce.adapters.database.replies import ask_reply, repetition, reply_of, reply_params
from uponce.adapters.database.steps import Ask, Params, Row, Rows, Rules, Steps, of_grant, of_name, operation
from uponce.app.ports import AfterCommit, Candidate, Committed, Draft, Page, Refusal
from uponce.core.errors import GrantRefused, UnknownApiKey, UponceError
from uponce.core.freshness import check_watermark, utc
from uponce.core.refusals import refusal_of
from uponce.core.signature import KEY_OCTETS, dated, timestamp_of
from uponce.core.values import Asset, AssetName, AuditEvent, AuditRecord, Caller, Grant, GrantRecord, GrantStatus

_UPLOAD, _CALL = "an upload", "a call"
_BEHIND_ALL = dated(2**40 - 1, b"")
_TOLD_SECONDS = 3600

# The longest text of an IP address: IPv6 with an IPv4 address inside.
ADDRESS_LENGTH = 45


def _locks_of_upload(grant: Grant, draft: Draft, *_: object) -> tuple[int, int]:
    return of_name(draft.name), of_grant(grant.key)


@operation(rules=Rules.SHARED, grouped=True, locks=_locks_of_upload)
def commit(now: float, grant: Grant, draft: Draft, caller: Caller) -> Steps[Committed]:
    """Spend, publish, write the audit row: all of it or none. A repeat gets the answer of the first one."""
    repeated = draft.idempotency_key
    asks = [ask_watermark(grant), ("find_condemned", {"blob_key": draft.blob_key}), ask_asset(draft.name)]
    if repeated is not None:
        asks.append(ask_reply(grant.key, repeated))
    keys, condemned, old, *replies = yield asks
    check_key(grant, keys)
    before = repetition(reply_of(replies[0][0]), draft) if replies and replies[0] else None
    if before is not None:
        return before
    if condemned:
        raise refuse_condemned()
    yield from _spend(grant, now, _UPLOAD)
    committed = publication(draft, asset_of(old[0]) if old else None, now)
    yield publishing([grant], committed, draft, caller, now)
    return committed


def publishing(grants: Sequence[Grant], committed: Committed, draft: Draft, caller: Caller, now: float) -> list[Ask]:
    """Return the writes of an upload whose grants are spent: its asset, its audit rows, its replies and its effects.

    An existing asset that was not overwritten is not written again.
    """
    asset: list[Ask] = [] if committed.existing else [("put_asset", asset_params(committed.asset))]
    notes = [ask for grant in grants for ask in _noting(grant, committed, draft, caller, now)]
    return asset + notes + _leaving(grants[0], committed, draft, caller, now)


def _leaving(grant: Grant, committed: Committed, draft: Draft, caller: Caller, now: float) -> list[Ask]:
    """Return the writes of the draft's effects. Those of one asset run in the order of its commits."""
    return [
        outbox.adding(
            name, committed.asset.asset_id, now, after=AfterCommit(details, grant.api_key, caller.request_id, committed)
        )
        for name, details in draft.effects
    ]


def _noting(grant: Grant, committed: Committed, draft: Draft, caller: Caller, now: float) -> list[Ask]:
    """Return the writes of a use: its audit row, and the reply for repeats, which no later transaction could add."""
    note = _note_of(AuditEvent.SPENT, committed.asset, caller, now)
    writes: list[Ask] = [("write_audit", audit_params(grant, note))]
    if draft.idempotency_key is not None:
        writes.append(("keep_reply", reply_params(grant, draft, draft.idempotency_key, committed)))
    return writes


@operation(rules=Rules.SHARED, grouped=True, locks=lambda grant, name, caller: (of_name(name), of_grant(grant.key)))
def delete(now: float, grant: Grant, name: AssetName, caller: Caller) -> Steps[Asset | None]:
    """Spend, delete the row, write the audit row: all of it or none. Return what Ledger.delete returns."""
    keys, found, records = yield [ask_watermark(grant), ask_asset(name), ask_grant(grant.key)]
    check_key(grant, keys)
    if not found:
        check_usable(first_grant(records), grant, by=_CALL)
        return None
    yield from _spend(grant, now, _CALL)
    asset = asset_of(found[0])
    yield [
        ("drop_asset", {"asset_id": asset.asset_id}),
        ("write_audit", audit_params(grant, _note_of(AuditEvent.DELETED, asset, caller, now))),
    ]
    return asset


def _spend(grant: Grant, now: float, by: str) -> Steps[None]:
    """Take one use. Raise SignatureUsed or SignatureRevoked if none is left."""
    (taken,) = yield [("spend_grant", grant_params(grant, now))]
    if not taken:
        # A separate statement: the first may have waited for another transaction, which its own snapshot does not show.
        (records,) = yield [ask_grant(grant.key)]
        check_usable(first_grant(records), grant, by=by)
        raise AssertionError("a use is left")


@operation(rules=Rules.SHARED, grouped=True, locks=lambda grant, caller: (of_grant(grant.key),))
def revoke(now: float, grant: Grant, caller: Caller) -> Steps[GrantRecord]:
    """Revoke a grant, and return its row. A grant that is used up or revoked stays as it is: no second audit row."""
    (changed,) = yield [("revoke_grant", grant_params(grant, now))]
    asks = [ask_grant(grant.key)]
    if changed:
        asks.append(("write_audit", audit_params(grant, AuditRecord(int(now), AuditEvent.REVOKED, caller))))
    records, *_ = yield asks
    return grant_of(records[0])


@operation(grouped=True, locks=lambda grant, code, caller, most=20: (of_grant(grant.key),))
def refuse(now: float, grant: Grant, code: str, caller: Caller, most: int = 20) -> Steps[None]:
    """Add an audit row. If the grant has `most` rows of refusals, count all further ones in one more row."""
    ((known,),) = yield [("count_refusals", {"grant_key": grant.key})]
    row = audit_params(grant, AuditRecord(int(now), AuditEvent.REFUSED, caller, code))
    if known["refusals"] <= most:
        yield [("write_audit", row)]
        return
    counted = {name: row[name] for name in ("at", "code", "address", "request_id")}
    yield [("add_refusal", counted | {"last": known["last"]})]


def _locks_of_arrival(made: Candidate | Refusal, most: int) -> tuple[int, ...]:
    return _locks_of_upload(made.grant, made.draft) if isinstance(made, Candidate) else (of_grant(made.grant.key),)


@operation(rules=Rules.SHARED, grouped=True, locks=_locks_of_arrival)
def commit_or_refuse(now: float, made: Candidate | Refusal, most: int) -> Steps[Committed | UponceError]:
    """Commit an upload that took its steps, or record its refusal. Return that refusal: its audit row stays."""
    if isinstance(made, Refusal):
        yield from refuse.steps(now, made.grant, made.error.code, made.caller, most)
        return made.error
    try:
        return (yield from commit.steps(now, made.grant, made.draft, made.caller))
    except GrantRefused as error:
        refusal = error
    yield from refuse.steps(now, made.grant, refusal.code, made.caller, most)
    return refusal


@operation()
def find(_: float, key: bytes) -> Steps[GrantRecord | None]:
    (records,) = yield [ask_grant(key)]
    return first_grant(records)


@operation()
def history(_: float, key: bytes, limit: int, before: int = 2**63 - 1) -> Steps[Sequence[AuditRecord]]:
    """Return the newest audit rows of a grant whose id is less than `before`, oldest first."""
    (rows,) = yield [("history", {"grant_key": key, "most": limit, "before": before})]
    return [_audit_of(row) for row in reversed(rows)]


@operation()
def newest_moment(_: float) -> Steps[int | None]:
    """Return a time that the clock has certainly passed: that of a recorded use or refusal, or a watermark."""
    ((row,),) = yield [("newest_moment", {})]
    moment: int | None = row["moment"]
    return moment


@operation(first="unsorted")
def page(
    _: float, cloud: str, *, api_key: str | None, status: GrantStatus | None, limit: int, cursor: str | None
) -> Steps[Page[GrantRecord]]:
    """Return a page of grants, newest timestamp first, in the order of the keys."""
    before = _parsed(cursor)
    name = f"{f'{status}_' if status else ''}grants_of_{'cloud' if api_key is None else 'key'}"
    values = {"cloud": cloud, "api_key": api_key, "before": before, "timestamp": timestamp_of(before)}
    (rows,) = yield [(name, values | {"most": limit + 1})]  # the surplus row only shows that there is a next page
    records = tuple(grant_of(row) for row in rows[:limit])
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


def ask_watermark(grant: Grant) -> Ask:
    return "find_watermark", {"api_key": grant.api_key, "cloud": grant.cloud}


def ask_grant(key: bytes) -> Ask:
    return "find_grant", {"grant_key": key}


def first_grant(records: Rows) -> GrantRecord | None:
    return grant_of(records[0]) if records else None


def check_key(grant: Grant, keys: Rows, *, watermark: bool = True) -> None:
    """Raise UnknownApiKey if the key is revoked by now, StaleRequest if a purge may have dropped the grant's row.

    `keys` is the result of `ask_watermark`. Without `watermark`, only the revocation is checked. The watermark is an
    additional safeguard: rows are kept for longer than an upload may last, unless the clock was stepped.
    """
    if not keys:
        raise UnknownApiKey(f"Unknown API key {grant.api_key}. It was revoked during the request.")
    if watermark:
        check_watermark(grant.timestamp, keys[0]["watermark"])


def check_usable(record: GrantRecord | None, grant: Grant, *, by: str = _UPLOAD) -> None:
    """Raise SignatureUsed or SignatureRevoked if the grant's row says so. A grant without a row can be used."""
    refusal = record and refusal_of(record, grant.max_uses, by=by)
    if refusal:
        raise refusal


def check_all_usable(grants: Sequence[Grant], records: Sequence[Rows]) -> None:
    """Raise the refusal of the first grant that cannot be used. `records` has the result of `ask_grant` for each."""
    for grant, found in zip(grants, records, strict=True):
        try:
            check_usable(first_grant(found), grant)
        except GrantRefused as refusal:
            raise _refuse_one_of(len(grants), grant, refusal) from None


def _refuse_one_of(count: int, grant: Grant, refusal: GrantRefused) -> GrantRefused:
    """Return the refusal of one grant. If the upload has several grants, the refusal names this one."""
    if count == 1:
        return refusal
    return type(refusal)(
        f"{refusal.message} It is the signature of {utc(grant.timestamp)}, one of {count} of this upload."
    )


def kept_until(grant: Grant, now: float) -> Grant:
    """Return the grant with a later end, so that the ledger still knows the outcome of a long upload for a while."""
    return replace(grant, keep_until=max(grant.keep_until, int(now) + _TOLD_SECONDS))


def _note_of(event: AuditEvent, asset: Asset, caller: Caller, now: float) -> AuditRecord:
    return AuditRecord(int(now), event, caller, asset_id=asset.asset_id, public_id=asset.name.public_id)


def grant_params(grant: Grant, now: float) -> Params:
    return {
        "grant_key": grant.key,
        "cloud": grant.cloud,
        "api_key": grant.api_key,
        "timestamp": grant.timestamp,
        "max_uses": grant.max_uses,
        "keep_until": grant.keep_until,
        "now": int(now),
    }


def grant_of(row: Row) -> GrantRecord:
    grant = Grant(row["grant_key"], row["cloud"], row["api_key"], row["timestamp"], row["max_uses"], row["keep_until"])
    return GrantRecord(grant, row["uses"], row["spent_at"], row["revoked_at"], row["pending"])


def audit_params(grant: Grant, record: AuditRecord) -> Params:
    return {
        "at": record.at,
        "grant_key": grant.key,
        "cloud": grant.cloud,
        "api_key": grant.api_key,
        "event": record.event,
        "code": record.code,
        "asset_id": record.asset_id,
        "public_id": record.public_id,
        "address": record.caller.address[:ADDRESS_LENGTH],
        "request_id": record.caller.request_id,
        "count": record.count,
    }


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
