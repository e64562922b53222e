"""The ledger of grants: spend, revoke, look up, purge. Every function runs inside its caller's transaction."""

import base64
import sqlite3
from dataclasses import dataclass
from typing import Any

from uponce.core.errors import GrantRefused, InvalidParameter, UnknownApiKey
from uponce.core.freshness import check_fresh
from uponce.core.refusals import refusal_of
from uponce.core.values import Grant, GrantRecord, GrantStatus

_COLUMNS = "grant_key, cloud, api_key, timestamp, max_uses, uses, keep_until, spent_at, revoked_at"

# The whole of "works once": one statement, which either takes a use that is left or changes nothing. The lesser
# `max_uses` counts, so that loosening a key's policy does not revive what was used up under the strict one.
_SPEND = """
INSERT INTO grants (grant_key, cloud, api_key, timestamp, max_uses, uses, keep_until, spent_at)
VALUES (:key, :cloud, :api_key, :timestamp, :max_uses, 1, :keep_until, :now)
ON CONFLICT (grant_key) DO UPDATE SET
  uses = uses + 1,
  max_uses = min(max_uses, excluded.max_uses),
  keep_until = max(keep_until, excluded.keep_until),
  spent_at = excluded.spent_at
WHERE uses < min(max_uses, excluded.max_uses) AND revoked_at IS NULL
"""

_REVOKE = """
INSERT INTO grants (grant_key, cloud, api_key, timestamp, max_uses, uses, keep_until, revoked_at)
VALUES (:key, :cloud, :api_key, :timestamp, :max_uses, 0, :keep_until, :now)
ON CONFLICT (grant_key) DO UPDATE SET
  keep_until = max(keep_until, excluded.keep_until),
  revoked_at = excluded.revoked_at
WHERE uses < min(max_uses, excluded.max_uses) AND revoked_at IS NULL
"""

_PURGE = """
DELETE FROM grants WHERE grant_key IN (
  SELECT grant_key FROM grants
  WHERE keep_until < :now AND grant_key NOT IN (SELECT grant_key FROM series_grants)
  ORDER BY keep_until LIMIT :rows
) RETURNING api_key, timestamp
"""

_STATUS = {
    None: "",
    GrantStatus.REVOKED: "AND revoked_at IS NOT NULL",
    GrantStatus.USED: "AND revoked_at IS NULL AND uses >= max_uses",
    GrantStatus.UNUSED: "AND revoked_at IS NULL AND uses < max_uses",
}


def spend(connection: sqlite3.Connection, grant: Grant, now: float) -> None:
    """Take one use, or raise SignatureUsed or SignatureRevoked."""
    if connection.execute(_SPEND, _bound(grant, now)).rowcount != 1:
        raise _refusal(connection, grant)


def revoke(connection: sqlite3.Connection, grant: Grant, now: float) -> tuple[GrantRecord, bool]:
    """The row after it, and whether this call is what revoked it; what is used up or revoked stays as it is."""
    changed = connection.execute(_REVOKE, _bound(grant, now)).rowcount == 1
    record = find(connection, grant.key)
    assert record is not None
    return record, changed


def check_key(connection: sqlite3.Connection, grant: Grant, *, watermark: bool = True) -> None:
    """UnknownApiKey when the key was revoked meanwhile; StaleRequest when a purge may have dropped the grant's row.

    The latter is a belt: rows are kept for longer than an upload may last, unless the clock was stepped. Without
    `watermark` it is not asked, for grants whose rows a purge spares.
    """
    row = connection.execute(
        "SELECT watermark FROM api_keys WHERE api_key = ? AND cloud = ? AND revoked_at IS NULL",
        (grant.api_key, grant.cloud),
    ).fetchone()
    if row is None:
        raise UnknownApiKey(f"Unknown API key {grant.api_key}. It was revoked while the upload ran.")
    # With the timestamp's own moment as `now`, only the watermark is left to judge.
    check_fresh(grant.timestamp, now=grant.timestamp, window=0, skew=0, watermark=row[0] if watermark else None)


def find(connection: sqlite3.Connection, key: bytes) -> GrantRecord | None:
    row = connection.execute(f"SELECT {_COLUMNS} FROM grants WHERE grant_key = ?", (key,)).fetchone()
    return None if row is None else _record(row)


def purge(connection: sqlite3.Connection, now: float, rows: int) -> int:
    """Drop at most so many rows whose time is over, and raise their keys' watermarks over them; how many."""
    dropped = connection.execute(_PURGE, {"now": now, "rows": rows}).fetchall()
    newest: dict[str, int] = {}
    for api_key, timestamp in dropped:
        newest[api_key] = max(timestamp, newest.get(api_key, timestamp))
    connection.executemany(
        "UPDATE api_keys SET watermark = max(coalesce(watermark, :mark), :mark) WHERE api_key = :api_key",
        [{"api_key": api_key, "mark": timestamp} for api_key, timestamp in newest.items()],
    )
    return len(dropped)


def raise_watermarks(connection: sqlite3.Connection, mark: int) -> None:
    """Of every key, also of revoked ones; never down."""
    connection.execute("UPDATE api_keys SET watermark = max(coalesce(watermark, :mark), :mark)", {"mark": mark})


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a list of grants, newest timestamp first: after this row."""

    timestamp: int
    key: bytes

    def __str__(self) -> str:
        raw = self.timestamp.to_bytes(8, "big") + self.key
        return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def parse_cursor(text: str) -> Cursor:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raw = b""
    cursor = Cursor(int.from_bytes(raw[:8], "big", signed=True), raw[8:])
    if not cursor.key or cursor.timestamp < 0:
        raise InvalidParameter("The cursor cannot be read. Send next_cursor as it was received, or none to begin.")
    return cursor


def page(
    connection: sqlite3.Connection,
    cloud: str,
    *,
    api_key: str | None,
    status: GrantStatus | None,
    limit: int,
    after: Cursor | None,
) -> tuple[list[GrantRecord], Cursor | None]:
    """At most `limit` records, and where the next page begins."""
    own = "" if api_key is None else "AND api_key = :api_key"
    rest = "" if after is None else "AND (timestamp, grant_key) < (:timestamp, :key)"
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM grants WHERE cloud = :cloud {own} {_STATUS[status]} {rest} "
        "ORDER BY timestamp DESC, grant_key DESC LIMIT :limit",
        {
            "cloud": cloud,
            "api_key": api_key,
            "timestamp": after and after.timestamp,
            "key": after and after.key,
            "limit": limit + 1,
        },
    ).fetchall()
    records = [_record(row) for row in rows[:limit]]
    if len(rows) <= limit:
        return records, None
    last = records[-1].grant
    return records, Cursor(last.timestamp, last.key)


def _refusal(connection: sqlite3.Connection, grant: Grant) -> GrantRefused:
    record = find(connection, grant.key)
    assert record is not None
    refusal = refusal_of(record, grant.max_uses)
    assert refusal is not None
    return refusal


def _bound(grant: Grant, now: float) -> dict[str, Any]:
    return {
        "key": grant.key,
        "cloud": grant.cloud,
        "api_key": grant.api_key,
        "timestamp": grant.timestamp,
        "max_uses": grant.max_uses,
        "keep_until": grant.keep_until,
        "now": int(now),
    }


def _record(row: tuple[Any, ...]) -> GrantRecord:
    key, cloud, api_key, timestamp, max_uses, uses, keep_until, spent_at, revoked_at = row
    return GrantRecord(Grant(key, cloud, api_key, timestamp, max_uses, keep_until), uses, spent_at, revoked_at)
