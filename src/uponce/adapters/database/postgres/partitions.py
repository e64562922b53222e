"""The ledger in half-hours of the signatures' own timestamps: forgetting a whole one is dropping a table.

A timestamp is part of what was signed, so a grant never moves from one part to another, whatever becomes of its key's
window. Parts are made ahead; what falls outside of them stands in the default one, and is forgotten row by row. The
caller holds the rules alone: no grant is used meanwhile.
"""

import re
from collections.abc import Sequence

from uponce.adapters.database.postgres import ledger
from uponce.adapters.database.postgres.connection import Connection

SPAN = 1800
_AHEAD = 4 * SPAN
_PATIENCE = "SET LOCAL lock_timeout = 200"  # milliseconds
_LIST = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'grants'::regclass"


async def turn_over(connection: Connection, now: float) -> int:
    """Drop the parts that hold nothing to be kept any more, and make those that are to come; how many rows went.

    LockNotAvailable when a long reader (pg_dump) is in the way: uploads must not wait for it.
    """
    present = await _starts(connection)
    first = int(now) - int(now) % SPAN
    past = [start for start in present if start + SPAN <= now and await _is_over(connection, start, now)]
    coming = [start for start in range(first, first + _AHEAD, SPAN) if start not in present]
    if past or coming:
        await connection.execute(_PATIENCE)
        await connection.execute("LOCK TABLE grants IN ACCESS EXCLUSIVE MODE")
    for start in coming:
        await _make(connection, start)
    return sum([await _drop(connection, start) for start in past])


async def _starts(connection: Connection) -> Sequence[int]:
    """Oldest first."""
    rows = await connection.execute(_LIST)
    names = [re.search(r"grants_(\d+)$", name) for (name,) in await rows.fetchall()]
    return sorted(int(name[1]) for name in names if name)


async def _is_over(connection: Connection, start: int, now: float) -> bool:
    """No row is to be kept, and no series holds a grant of that time, whose row would have to stay."""
    rows = await connection.execute(
        f"SELECT FROM {_table(start)} WHERE keep_until >= %s "
        "UNION ALL SELECT FROM series_grants WHERE timestamp >= %s AND timestamp < %s LIMIT 1",
        (now, start, start + SPAN),
    )
    return await rows.fetchone() is None


async def _drop(connection: Connection, start: int) -> int:
    table, dropped = _table(start), 0
    rows = await connection.execute(f"SELECT api_key, max(timestamp), count(*) FROM {table} GROUP BY api_key")
    for api_key, newest, count in await rows.fetchall():
        await ledger.raise_watermarks(connection, newest, api_key)
        dropped += count
    await connection.execute(f"DROP TABLE {table}")
    return dropped


async def _make(connection: Connection, start: int) -> None:
    """Not where the default part has rows already: they cannot move."""
    rows = await connection.execute(
        "SELECT FROM grants_other WHERE timestamp >= %s AND timestamp < %s LIMIT 1", (start, start + SPAN)
    )
    if await rows.fetchone() is None:
        await connection.execute(
            f"CREATE TABLE {_table(start)} PARTITION OF grants FOR VALUES FROM ({_number(start)}) "
            f"TO ({_number(start + SPAN)})"
        )


def _table(start: int) -> str:
    return f"grants_{_number(start)}"


def _number(value: int) -> str:
    """Tables and bounds cannot be bound as parameters; an int is digits."""
    return str(int(value))
