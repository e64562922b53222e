"""The schema and its versions, and the partitions of the ledger.

The schema is numbered SQL files, applied in order, forward only, all or nothing. A database that is one version ahead
is accepted: during an upgrade of one server after the other, old servers continue. So a migration may add. It may drop
only what the release before it does not use any more.

The ledger has a partition for each half-hour of the signatures' timestamps. To forget a whole half-hour is to drop a
table. The timestamp is signed, so a grant never moves to another partition, whatever happens to its key's window.
Partitions are made ahead. Other rows are in the default partition, and are forgotten row by row. A change of partitions
holds the rules alone: no grant is used during the change. So each partition gets its own transaction.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from uponce.adapters.database import upkeep
from uponce.adapters.database.failures import refuse_newer, refuse_older
from uponce.adapters.database.postgres.connection import Connection
from uponce.adapters.database.statements import load, load_migrations
from uponce.adapters.database.steps import Ask, Operation, Params, Rules, Steps, operation
from uponce.core.signature import dated, timestamp_of

_STATEMENTS = load("postgres")


def migrate(connection: Connection, *, upgrade: bool = True) -> None:
    """Bring the database to the newest version. Several servers may try at once: the others wait, and find it done.

    Raise SettingRefused if the database is more than one version ahead, or without `upgrade`, if it is behind.
    """
    steps = load_migrations("postgres")
    present = version_of(connection)
    if not upgrade:
        refuse_older(present, len(steps))
    if present not in (len(steps), len(steps) + 1):
        with connection.transaction():
            # An index of a large table takes longer than a statement of an upload may, and the others wait for it.
            connection.execute(_STATEMENTS["wait_long"].text)
            connection.execute(_STATEMENTS["wait_briefly"].filled({"milliseconds": 0}))
            connection.execute(_STATEMENTS["lock_schema"].text)
            # But uploads wait behind a step that waits for the lock of a table.
            connection.execute(_STATEMENTS["wait_briefly"].filled({"milliseconds": int(connection.wait_seconds * 500)}))
            present = version_of(connection)
            refuse_newer(present, len(steps) + 1)
            is_frozen = present > 0 and connection.execute(_STATEMENTS["is_frozen"].text).fetchone() != (0,)
            if is_frozen:  # a step may write, and the copy must be usable in this release too
                _change(connection, upkeep.thaw_unfenced())
            for step in steps[present:]:
                connection.execute(step)
            if is_frozen:
                _change(connection, upkeep.freeze())
            for name in ("forget_version", "record_version"):
                connection.execute(_STATEMENTS[name].filled({"version": len(steps)}))


def _change(connection: Connection, operation: Operation[None]) -> None:
    """Run an operation of one step, whose statements have only names in them."""
    for name, values in next(operation.begin(0)):
        connection.execute(_STATEMENTS[name].filled(values))


def version_of(connection: psycopg.Connection[tuple[Any, ...]]) -> int:
    """Return the version of the schema. Return 0 for a database without tables of uponce."""
    if connection.execute(_STATEMENTS["find_schema"].text).fetchone() is None:
        return 0
    row = connection.execute(_STATEMENTS["schema_version"].text).fetchone()
    return (row and row[0]) or 0


SPAN = 1800
# For so long may a dump run, which keeps all partitions as they are, before rows come into the default partition. It is
# longer than such rows are kept by default. So the default partition is empty again before the new partitions end.
_AHEAD = 12 * SPAN
_LOCK: Sequence[Ask] = [("wait_briefly", {"milliseconds": 200}), ("lock_grants", {})]


@operation(timed=True)
def coming_parts(now: float) -> Steps[tuple[Mapping[int, bool], Sequence[int], int]]:
    """Return the starts of the partitions to make, those that `make_part` would not make, and the default one's bytes.

    Each start to make has whether uploads may need the partition within the next hour.
    """
    present = yield from _starts()
    first = int(now) - int(now) % SPAN
    coming, skipped = {}, []
    for start in range(first, first + _AHEAD, SPAN):
        if start in present:
            continue
        if (yield from _has_others(start)):
            skipped.append(start)
        else:
            coming[start] = start <= now + 2 * SPAN
    ((row,),) = yield [("size_of_other", {})]
    return coming, skipped, row["bytes"]


@operation(rules=Rules.OWN)
def make_part(_: float, start: int) -> Steps[None]:
    """Make a partition, unless it exists, or the default partition has rows of its time: they cannot move.

    Raise LockNotAvailable if a long reader (pg_dump) holds a lock: uploads must not wait for it.
    """
    if start not in (yield from _starts()) and not (yield from _has_others(start)):
        yield [*_LOCK, ("make_grant_part", {"start": start, "stop": start + SPAN})]


@operation(patient=True, timed=True)
def past_parts(now: float) -> Steps[Mapping[int, int]]:
    """Return the partitions that hold no row to keep, by their start, with the number of their rows.

    Counting takes a while, so it takes no lock. `drop_part` keeps a partition that gets a row afterwards.
    """
    counted: dict[int, int] = {}
    for start in (yield from _starts()):
        if start + SPAN <= now and (yield from _is_over(start, now)):
            ((row,),) = yield [("count_grants_within", _bounds(start))]
            counted[start] = row["rows"]
    return counted


@operation(rules=Rules.OWN)
def drop_part(now: float, start: int, rows: int) -> Steps[int]:
    """Drop a partition of so many rows, unless it is gone or has a row to keep. Return the number of dropped rows.

    Raise LockNotAvailable as `make_part` does.
    """
    if start not in (yield from _starts()) or not (yield from _is_over(start, now)):
        return 0
    yield [*_LOCK, ("raise_watermarks_over_part", {"start": start}), ("drop_grant_part", {"start": start})]
    return rows


def _starts() -> Steps[Sequence[int]]:
    """Return the starts of the partitions, oldest first."""
    (rows,) = yield [("list_grant_parts", {})]
    names = [re.search(r"grants_(\d+)$", row["name"]) for row in rows]
    return sorted(int(name[1]) for name in names if name)


def _is_over(start: int, now: float) -> Steps[bool]:
    """Return whether no row must be kept: each is past its time, and no unfinished upload holds its grant."""
    (kept,) = yield [("keeps_grants", {**_bounds(start), "now": int(now)})]  # with a fraction, no index would be used
    return not kept


def _has_others(start: int) -> Steps[bool]:
    """Return whether the default partition has rows of that time."""
    (rows,) = yield [("find_other_within", _bounds(start))]
    return bool(rows)


def _bounds(start: int) -> Params:
    low, high = bounds_of(start)
    return {"from_key": low, "to_key": high}


def part_of(grant_key: bytes) -> int:
    """Return the start of the partition of this key, whether it exists or not."""
    timestamp = timestamp_of(grant_key)
    return timestamp - timestamp % SPAN


def bounds_of(start: int) -> tuple[bytes, bytes]:
    """Return the least key of that time, and the least key of the next partition."""
    return dated(start, b""), dated(start + SPAN, b"")
