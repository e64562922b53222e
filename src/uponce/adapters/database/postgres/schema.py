"""The schema and its versions, and the parts of the ledger.

The schema is numbered SQL files, applied in order, forward only, all or nothing.

A database that is one version ahead is accepted: while servers are upgraded one after the other, old ones go on. So a
migration may add, and may drop only what the release before it has stopped using.

The ledger is in half-hours of the signatures' own timestamps: forgetting a whole one is dropping a table. A timestamp
is part of what was signed, so a grant never moves from one part to another, whatever becomes of its key's window. Parts
are made ahead. Rows outside of them are in the default one, and are forgotten row by row. Changing parts holds the
rules alone: no grant is used meanwhile.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from uponce.adapters.database.failures import refuse_newer
from uponce.adapters.database.statements import load, load_migrations
from uponce.adapters.database.steps import Params, Rules, Steps, operation
from uponce.core.signature import dated

_STATEMENTS = load("postgres")


def migrate(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    """Bring the database to the newest version. Safe to race: others wait, and find it done.

    SettingRefused when it is more than one version ahead.
    """
    steps = load_migrations("postgres")
    if version_of(connection) not in (len(steps), len(steps) + 1):
        with connection.transaction():
            connection.execute(_STATEMENTS["lock_schema"].text)
            present = version_of(connection)
            refuse_newer(present, len(steps) + 1)
            for step in steps[present:]:
                connection.execute(step)
            for name in ("forget_version", "record_version"):
                connection.execute(_STATEMENTS[name].filled({"version": len(steps)}))


def version_of(connection: psycopg.Connection[tuple[Any, ...]]) -> int:
    """0 for a database that is not ours yet."""
    if connection.execute(_STATEMENTS["find_schema"].text).fetchone() is None:
        return 0
    row = connection.execute(_STATEMENTS["schema_version"].text).fetchone()
    return (row and row[0]) or 0


SPAN = 1800
_AHEAD = 4 * SPAN


@operation(patient=True, timed=True)
def past_parts(now: float) -> Steps[Mapping[int, int]]:
    """The parts that hold nothing to be kept any more, by their start, with the number of their rows.

    Asked without a lock, since counting takes a while: what a part gets afterwards makes it one to be kept.
    """
    counted: dict[int, int] = {}
    for start in (yield from _starts()):
        if start + SPAN <= now and (yield from _is_over(start, now)):
            ((row,),) = yield [("count_grants_within", _bounds(start))]
            counted[start] = row["rows"]
    return counted


@operation(rules=Rules.OWN)
def turn_over(now: float, counted: Mapping[int, int]) -> Steps[int]:
    """Drop the parts that were counted as past, and make those that are to come; how many rows went.

    LockNotAvailable when a long reader (pg_dump) is in the way: uploads must not wait for it.
    """
    present = yield from _starts()
    first = int(now) - int(now) % SPAN
    dropped = []
    for start in present:
        if start in counted and (yield from _is_over(start, now)):
            dropped.append(start)
    coming = [start for start in range(first, first + _AHEAD, SPAN) if start not in present]
    if dropped or coming:
        yield [("wait_briefly", {}), ("lock_grants", {})]
    for start in coming:
        yield from _make(start)
    for start in dropped:
        yield [("raise_watermarks_over_part", {"start": start}), ("drop_grant_part", {"start": start})]
    return sum(counted[start] for start in dropped)


def _starts() -> Steps[Sequence[int]]:
    """Oldest first."""
    (rows,) = yield [("list_grant_parts", {})]
    names = [re.search(r"grants_(\d+)$", row["name"]) for row in rows]
    return sorted(int(name[1]) for name in names if name)


def _is_over(start: int, now: float) -> Steps[bool]:
    """No row is to be kept, and no series holds a grant of that time, whose row would have to stay."""
    (kept,) = yield [("keeps_grants", {**_bounds(start), "now": int(now)})]  # with a fraction, no index would be used
    return not kept


def _make(start: int) -> Steps[None]:
    """Not where the default part has rows already: they cannot move."""
    (present,) = yield [("find_other_within", _bounds(start))]
    if not present:
        yield [("make_grant_part", {"start": start, "stop": start + SPAN})]


def _bounds(start: int) -> Params:
    """The least key of that time, and of the next part's."""
    return {"from_key": dated(start, b""), "to_key": dated(start + SPAN, b"")}
