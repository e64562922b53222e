"""The ledger of grants: spend, revoke, look up, purge. Every function runs inside its caller's transaction."""

import sqlite3
from collections.abc import Mapping

from uponce.adapters.database import decisions
from uponce.adapters.database.decisions import refuse_spent
from uponce.adapters.database.listing import STATUS_CONDITION, page_of
from uponce.adapters.database.rows import GRANT_COLUMNS, grant_of, grant_values
from uponce.app.ports import Page
from uponce.core.values import Grant, GrantRecord, GrantStatus

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

# Here the row's own `max_uses` counts: what a key's strict policy refuses today its next policy may take again.
_REVOKE = """
INSERT INTO grants (grant_key, cloud, api_key, timestamp, max_uses, uses, keep_until, revoked_at)
VALUES (:key, :cloud, :api_key, :timestamp, :max_uses, 0, :keep_until, :now)
ON CONFLICT (grant_key) DO UPDATE SET
  keep_until = max(keep_until, excluded.keep_until),
  revoked_at = excluded.revoked_at
WHERE uses < max_uses AND revoked_at IS NULL
"""

_PURGE = """
DELETE FROM grants WHERE grant_key IN (
  SELECT grant_key FROM grants
  WHERE keep_until < :now AND grant_key NOT IN (SELECT grant_key FROM series_grants)
  ORDER BY keep_until LIMIT :rows
) RETURNING api_key, timestamp
"""

# Of what is rare among many rows. SQLite does not know how many there are, so it is told which one to use.
_INDEX: Mapping[GrantStatus | None, str] = {GrantStatus.UNUSED: "grants_unused", GrantStatus.REVOKED: "grants_revoked"}


def spend(connection: sqlite3.Connection, grant: Grant, now: float, *, by: str = "an upload") -> None:
    """Take one use, or raise SignatureUsed or SignatureRevoked."""
    if connection.execute(_SPEND, grant_values(grant, now)).rowcount != 1:
        raise refuse_spent(find(connection, grant.key), grant, by=by)


def revoke(connection: sqlite3.Connection, grant: Grant, now: float) -> tuple[GrantRecord, bool]:
    """The row after it, and whether this call is what revoked it; what is used up or revoked stays as it is."""
    changed = connection.execute(_REVOKE, grant_values(grant, now)).rowcount == 1
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
    decisions.check_key(grant, known=row is not None, watermark=row[0] if row and watermark else None)


def find(connection: sqlite3.Connection, key: bytes) -> GrantRecord | None:
    row = connection.execute(f"SELECT {GRANT_COLUMNS} FROM grants WHERE grant_key = ?", (key,)).fetchone()
    return None if row is None else grant_of(row)


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


def page(
    connection: sqlite3.Connection,
    cloud: str,
    *,
    api_key: str | None,
    status: GrantStatus | None,
    limit: int,
    after: bytes | None,
) -> Page[GrantRecord]:
    own = "" if api_key is None else "AND api_key = :api_key"
    index = _INDEX.get(status) or ("grants_page" if api_key is None else "grants_key_page")
    rest = "" if after is None else "AND grant_key < :after"
    rows = connection.execute(
        f"SELECT {GRANT_COLUMNS} FROM grants INDEXED BY {index} "
        f"WHERE cloud = :cloud {own} {STATUS_CONDITION[status]} {rest} "
        "ORDER BY grant_key DESC LIMIT :limit",
        {"cloud": cloud, "api_key": api_key, "after": after, "limit": limit + 1},
    )
    return page_of([grant_of(row) for row in rows], limit)
