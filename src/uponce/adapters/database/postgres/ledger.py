"""The ledger of grants: spend, revoke, look up, purge. Every function runs inside its caller's transaction."""

from collections.abc import Iterable
from typing import TypeAlias

from uponce.adapters.database import decisions
from uponce.adapters.database.listing import STATUS_CONDITION, page_of
from uponce.adapters.database.postgres.connection import Connection, Cursor
from uponce.adapters.database.rows import GRANT_COLUMNS, grant_of, grant_values
from uponce.app.ports import Page
from uponce.core.signature import dated, timestamp_of
from uponce.core.values import Grant, GrantRecord, GrantStatus

_INSERT = """
INSERT INTO grants AS present (grant_key, cloud, api_key, timestamp, max_uses, uses, keep_until, {when})
VALUES (%(key)s, %(cloud)s, %(api_key)s, %(timestamp)s, %(max_uses)s, {uses}, %(keep_until)s, %(now)s)
ON CONFLICT (grant_key) DO UPDATE SET
"""

# The whole of "works once": one statement, which either takes a use that is left or changes nothing; a rival that
# has not committed yet is waited for. The lesser `max_uses` counts, so that loosening a key's policy does not
# revive what was used up under the strict one.
_SPEND = f"""{_INSERT.format(when="spent_at", uses=1)}
  uses = present.uses + 1,
  max_uses = least(present.max_uses, excluded.max_uses),
  keep_until = greatest(present.keep_until, excluded.keep_until),
  spent_at = excluded.spent_at
WHERE present.uses < least(present.max_uses, excluded.max_uses) AND present.revoked_at IS NULL
RETURNING uses
"""

# Here the row's own `max_uses` counts: what a key's strict policy refuses today its next policy may take again.
_REVOKE = f"""{_INSERT.format(when="revoked_at", uses=0)}
  keep_until = greatest(present.keep_until, excluded.keep_until),
  revoked_at = excluded.revoked_at
WHERE present.uses < present.max_uses AND present.revoked_at IS NULL
RETURNING uses
"""

_PURGE = """
WITH old AS (
  SELECT grant_key FROM grants
  WHERE keep_until < %(before)s AND grant_key NOT IN (SELECT grant_key FROM series_grants)
  ORDER BY keep_until LIMIT %(rows)s
)
DELETE FROM grants USING old WHERE grants.grant_key = old.grant_key
RETURNING grants.api_key, grants.timestamp
"""

# One plan for all values, or each page would be planned anew over all parts of the ledger, which takes longer than
# reading it. So it must not hang on how many rows an owner has: the order is one that the primary key does not give,
# and of the indexes that do only one can be used. Nor on how many rows a part had when it was planned: to sort a few
# looks cheap. The order of the keys is the same, and tells which parts are past.
_UNSORTED = "SET LOCAL enable_sort = off"
_PAGE = f"""
SELECT {GRANT_COLUMNS} FROM grants
WHERE {{owner}} AND (timestamp, grant_key) < (%(timestamp)s, %(before)s) AND grant_key < %(before)s {{status}}
ORDER BY timestamp DESC, grant_key DESC LIMIT {{limit}}
"""
_OF_CLOUD = "cloud = %(cloud)s"
_OF_KEY = "api_key = %(api_key)s"  # of one cloud, as every key is
_OF_KEY_AMONG_RARE = f"{_OF_CLOUD} AND api_key || '' = %(api_key)s"  # by the index of the rare ones
_RARE = (GrantStatus.UNUSED, GrantStatus.REVOKED)
_BEHIND_ALL = dated(2**40 - 1, b"")

# By (cloud, api_key), of keys that are not revoked.
Watermarks: TypeAlias = dict[tuple[str, str], int | None]


async def ask_watermarks(connection: Connection, grants: Iterable[Grant]) -> Cursor:
    return await connection.execute(
        "SELECT cloud, api_key, watermark FROM api_keys WHERE api_key = ANY(%s::text[]) AND revoked_at IS NULL",
        ([grant.api_key for grant in grants],),
    )


async def watermarks(asked: Cursor) -> Watermarks:
    return {(cloud, api_key): watermark for cloud, api_key, watermark in await asked.fetchall()}


def check_key(grant: Grant, known: Watermarks) -> None:
    name = (grant.cloud, grant.api_key)
    decisions.check_key(grant, known=name in known, watermark=known.get(name))


async def ask_spend(connection: Connection, grant: Grant, now: float) -> Cursor:
    """It answers with one row if there was a use left to take, else with none."""
    return await connection.execute(_SPEND, grant_values(grant, now))


async def revoke(connection: Connection, grant: Grant, now: float) -> tuple[GrantRecord, bool]:
    """The row after it, and whether this call is what revoked it; what is used up or revoked stays as it is."""
    changed = await (await connection.execute(_REVOKE, grant_values(grant, now))).fetchone() is not None
    # A statement of its own: the one above may have waited for a rival that its own snapshot does not show.
    record = await find(connection, grant.key)
    assert record is not None
    return record, changed


async def find(connection: Connection, key: bytes) -> GrantRecord | None:
    rows = await connection.execute(f"SELECT {GRANT_COLUMNS} FROM grants WHERE grant_key = %s", (key,))
    row = await rows.fetchone()
    return None if row is None else grant_of(row)


async def purge(connection: Connection, before: float, rows: int) -> int:
    """Drop at most so many rows that were to be kept until earlier, and raise their keys' watermarks; how many.

    Those of unfinished series stay.
    """
    dropped = await (await connection.execute(_PURGE, {"before": int(before), "rows": rows})).fetchall()
    newest: dict[str, int] = {}
    for api_key, timestamp in dropped:
        newest[api_key] = max(timestamp, newest.get(api_key, timestamp))
    for api_key, mark in newest.items():
        await raise_watermarks(connection, mark, api_key)
    return len(dropped)


async def raise_watermarks(connection: Connection, mark: int, api_key: str | None = None) -> None:
    """Of one key, or of every key, also of revoked ones; never down."""
    await connection.execute(
        "UPDATE api_keys SET watermark = greatest(watermark, %s) WHERE api_key = coalesce(%s, api_key)",
        (mark, api_key),
    )


async def page(
    connection: Connection,
    cloud: str,
    *,
    api_key: str | None,
    status: GrantStatus | None,
    limit: int,
    after: bytes | None,
) -> Page[GrantRecord]:
    of_key = _OF_KEY_AMONG_RARE if status in _RARE else _OF_KEY
    statement = _PAGE.format(
        owner=_OF_CLOUD if api_key is None else of_key, status=STATUS_CONDITION[status], limit=int(limit) + 1
    )
    before = after or _BEHIND_ALL
    values = {"cloud": cloud, "api_key": api_key, "timestamp": timestamp_of(before), "before": before}
    async with connection.pipeline():
        await connection.execute("BEGIN READ ONLY")
        await connection.execute(_UNSORTED)
        rows = await connection.execute(statement, values)
        await connection.execute("COMMIT")
    return page_of([grant_of(row) for row in await rows.fetchall()], limit)
