"""The ledger in half-hours of the signatures' own timestamps: forgetting a whole one is dropping a table.

A timestamp is part of what was signed, so a grant never moves from one part to another, whatever becomes of its key's
window. Parts are made ahead; what falls outside of them stands in the default one, and is forgotten row by row. The
caller holds the rules alone: no grant is used meanwhile.
"""

import re
from collections.abc import Mapping, Sequence

from uponce.adapters.database.postgres.connection import Connection
from uponce.core.signature import dated

SPAN = 1800
_AHEAD = 4 * SPAN
_PATIENCE = "SET LOCAL lock_timeout = 200"  # milliseconds
# Of the whole, which only the part of that time answers: its name is gone when another server drops it meanwhile.
_WITHIN = "grant_key >= %(start)s AND grant_key < %(stop)s"
_LIST = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'grants'::regclass"


async def past(connection: Connection, now: float) -> Mapping[int, int]:
    """The parts that hold nothing to be kept any more, by their start, with the number of their rows.

    Asked without a lock, since counting takes a while: what a part gets afterwards makes it one to be kept.
    """
    over = [
        start for start in await _starts(connection) if start + SPAN <= now and await _is_over(connection, start, now)
    ]
    return {start: await _count(connection, start) for start in over}


async def turn_over(connection: Connection, now: float, counted: Mapping[int, int]) -> int:
    """Drop the parts that were counted as past, and make those that are to come; how many rows went.

    LockNotAvailable when a long reader (pg_dump) is in the way: uploads must not wait for it.
    """
    present = await _starts(connection)
    first = int(now) - int(now) % SPAN
    past = [start for start in present if start in counted and await _is_over(connection, start, now)]
    coming = [start for start in range(first, first + _AHEAD, SPAN) if start not in present]
    if past or coming:
        await connection.execute(_PATIENCE)
        await connection.execute("LOCK TABLE ONLY grants IN ACCESS EXCLUSIVE MODE")
    for start in coming:
        await _make(connection, start)
    for start in past:
        await _drop(connection, start)
    return sum(counted[start] for start in past)


async def _starts(connection: Connection) -> Sequence[int]:
    """Oldest first."""
    rows = await connection.execute(_LIST)
    names = [re.search(r"grants_(\d+)$", name) for (name,) in await rows.fetchall()]
    return sorted(int(name[1]) for name in names if name)


async def _is_over(connection: Connection, start: int, now: float) -> bool:
    """No row is to be kept, and no series holds a grant of that time, whose row would have to stay."""
    rows = await connection.execute(
        f"SELECT FROM grants WHERE {_WITHIN} AND keep_until >= %(now)s "
        f"UNION ALL SELECT FROM series_grants WHERE {_WITHIN} LIMIT 1",
        {**_bounds(start), "now": int(now)},  # with a float, no index would be used
    )
    return await rows.fetchone() is None


async def _count(connection: Connection, start: int) -> int:
    row = await (await connection.execute(f"SELECT count(*) FROM grants WHERE {_WITHIN}", _bounds(start))).fetchone()
    return row[0] if row else 0


async def _drop(connection: Connection, start: int) -> None:
    """Uploads wait meanwhile: the newest timestamp of each key is found by an index."""
    table = _table(start)
    await connection.execute(
        "UPDATE api_keys SET watermark = greatest(watermark, "
        f"(SELECT max(timestamp) FROM {table} WHERE {table}.api_key = api_keys.api_key))"
    )
    await connection.execute(f"DROP TABLE {table}")


async def _make(connection: Connection, start: int) -> None:
    """Not where the default part has rows already: they cannot move."""
    rows = await connection.execute(f"SELECT FROM grants_other WHERE {_WITHIN} LIMIT 1", _bounds(start))
    if await rows.fetchone() is None:
        await connection.execute(
            f"CREATE TABLE {_table(start)} PARTITION OF grants FOR VALUES FROM ({_bound(start)}) "
            f"TO ({_bound(start + SPAN)})"
        )


def _bounds(start: int) -> dict[str, bytes]:
    return {"start": dated(start, b""), "stop": dated(start + SPAN, b"")}


def _table(start: int) -> str:
    """Tables and bounds cannot be bound as parameters; an int is digits, and so is the hex of bytes."""
    return f"grants_{int(start)}"


def _bound(start: int) -> str:
    """The least key of that time."""
    return rf"'\x{dated(start, b'').hex()}'"
