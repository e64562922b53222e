"""Operations that keep a database in order: purge, fence, freeze, check, move."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from math import inf
from secrets import token_hex

from uponce.adapters.database.steps import Ask, Params, Rules, Runner, Steps, operation, runs
from uponce.app.ports import MovedRow, Rule, Table
from uponce.core.errors import DatabaseUnavailable
from uponce.core.lineage import follows, heir

# The most rows that one transaction deletes: uploads wait for it. Measured on SQLite with a million rows: 250 take
# 2 ms, 5,000 took 280 ms, and as long again to commit.
BATCH = 250
_LEAST_AHEAD = 3600  # seconds; the skew that servers noted may be younger than a use
_REST = 4
MOST_SECONDS = 300  # of one purge for one kind of rows: they may come as fast as it deletes them
_STEP = 6 * 3600  # a server purges every ten minutes or more often

FROZEN = "The database is frozen: it is a backup, or was moved away from."
# In the order of most other operations, since `thaw` waits for readers too.
_FREEZABLE = (
    "api_keys upstreams replies grants assets condemned audit series series_grants series_parts "
    "relays relay_grants outbox"
).split()
_EVENTS = "insert update delete".split()

# For each key column, a value before every key.
_BEFORE_ALL: MovedRow = {
    **dict.fromkeys(("blob_key", "relay_id", "cloud"), ""),
    **dict.fromkeys(("grant_key", "key_hash"), b""),
    **dict.fromkeys(("id", "one"), -1),
}
_NUMBERED = (Table.ASSETS, Table.AUDIT, Table.OUTBOX, Table.KEYS)


async def in_batches(delete: Callable[[], Awaitable[int]], *, seconds: float = inf) -> int:
    """Call `delete` until it deletes less than a BATCH, or for so many seconds. Return the sum.

    Rest four times as long as each batch took.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    total, count = 0, BATCH
    while count == BATCH:
        begun = loop.time()
        count = await delete()
        total += count
        if loop.time() >= until:
            break
        if count == BATCH:
            await asyncio.sleep(_REST * (loop.time() - begun))
    return total


@operation(rules=Rules.OWN)
def purge_grants(now: float, slack: int, most: int) -> Steps[int]:
    """Delete at most `most` rows that were to be kept until `slack` seconds ago. Return their number.

    Raise the watermarks of their keys over them. Grants of unfinished series and of pending relays stay.
    """
    (dropped,) = yield [("past_grants", {"before": int(now - slack), "most": most})]
    newest: dict[str, int] = {}
    for row in dropped:
        newest[row["api_key"]] = max(row["timestamp"], newest.get(row["api_key"], row["timestamp"]))
    yield [("drop_grant", {"grant_key": row["grant_key"]}) for row in dropped]
    yield [("raise_watermark", {"api_key": api_key, "mark": mark}) for api_key, mark in newest.items()]
    return len(dropped)


@operation(writes=True)
def purge_replies(now: float, slack: int, most: int) -> Steps[int]:
    """Delete at most `most` replies of grants whose time is over. Return their number. No request finds them."""
    (dropped,) = yield [("drop_replies", {"before": int(now - slack), "most": most})]
    return len(dropped)


@operation()
def end_of_purge(_: float, oldest: str) -> Steps[int]:
    """Return until which second one purge may delete rows, whatever the clock says. `oldest` looks the first one up.

    A clock that is months ahead for some minutes then deletes hours of the audit, and not all of it.
    """
    ((row,),) = yield [(oldest, {})]
    return (row["oldest"] or 0) + _STEP


@operation(writes=True)
def purge_audit(now: float, seconds: int, until: int, most: int) -> Steps[int]:
    """Delete at most `most` audit rows that are older than `seconds`, and from before `until`. Return their number.

    The time is a whole number: compared with a fraction, no index would be used.
    """
    (dropped,) = yield [("drop_audit", {"before": min(int(now - seconds), until), "most": most})]
    return len(dropped)


@operation(rules=Rules.OWN, patient=True)
def fence(now: float, skew: int) -> Steps[int]:
    """Pending relays stay: uponce must still find out whether their uploads completed upstream.

    The parts of all series may be millions of rows. With a time limit, no server could be admitted after a failover.
    """
    noted, moment = (yield from noted_settings.steps(now)), int(now)
    mark = moment + max(skew, int(noted.get("skew", 0)))
    yield [
        ("put_fence", {"moment": moment, "mark": mark}),
        ("raise_watermarks", {"mark": mark}),
        ("end_all_series", {}),
    ]
    return mark


@operation()
def wider_fence(_: float, skew: int) -> Steps[Params | None]:
    """Return moment and mark of the last fence as `skew` would make it, if it was made with a smaller skew."""
    (fences,) = yield [("find_fence", {})]
    for row in fences:
        if row["mark"] < row["moment"] + skew:
            return {"moment": row["moment"], "mark": row["moment"] + skew}
    return None


@operation(rules=Rules.OWN, patient=True)
def widen_fence(now: float, skew: int) -> Steps[int | None]:
    wider = yield from wider_fence.steps(now, skew)
    if wider is None:  # another server was first
        return None
    yield [("put_fence", wider), ("raise_fenced", wider), ("end_fenced_series", {"mark": wider["mark"]})]
    return int(wider["mark"])


@operation(rules=Rules.OWN)
def freeze(_: float) -> Steps[None]:
    """Make triggers that refuse every write from now on, of every process, whenever it connected."""
    yield [("freeze", trigger) for trigger in _TRIGGERS]


@operation(rules=Rules.OWN, patient=True)
def thaw(now: float, skew: int) -> Steps[int]:
    yield [("thaw", trigger) for trigger in _TRIGGERS]
    return (yield from fence.steps(now, skew))


@operation(rules=Rules.OWN)
def thaw_unfenced(_: float) -> Steps[None]:
    """Accept writes without a fence, inside of a transaction that freezes again."""
    yield [("thaw", trigger) for trigger in _TRIGGERS]


_TRIGGERS = [{"table": table, "event": event} for table in _FREEZABLE for event in _EVENTS]
_INSERTS = [trigger for trigger in _TRIGGERS if trigger["event"] == "insert"]


@operation()
def frozen(_: float) -> Steps[bool]:
    ((row,),) = yield [("is_frozen", {})]
    return bool(row["frozen"])


@operation()
def owner(_: float) -> Steps[str | None]:
    (rows,) = yield [("find_owner", {})]
    return rows[0]["name"] if rows else None


@operation(rules=Rules.OWN)
def make_owner(_: float) -> Steps[str]:
    _added, (row,) = yield [("add_owner", {"name": token_hex(16)}), ("find_owner", {})]
    name: str = row["name"]
    return name


@operation(rules=Rules.OWN)
def follow_owner(_: float, owner: str) -> Steps[str]:
    """Return an owner that follows this one. If two servers make it at once, both get the first one's."""
    (rows,) = yield [("find_owner", {})]
    name: str = rows[0]["name"] if rows else owner
    if name == owner or not follows(name, owner):
        new = heir(token_hex(16), owner)
        _dropped, _added, (row,) = yield [("drop_owner", {}), ("add_owner", {"name": new}), ("find_owner", {})]
        name = row["name"]
    return name


@operation(writes=True)
def replace_owner(_: float, name: str) -> Steps[None]:
    yield [("drop_owner", {}), ("add_owner", {"name": name})]


def steps_of_succession(now: float) -> Steps[None]:
    """Replace the owner of a database that replaces another one. The other one then loses the storage."""
    (rows,) = yield [("find_owner", {})]
    if rows:
        yield from follow_owner.steps(now, rows[0]["name"])


@operation(writes=True)
def note_settings(now: float, settings: Mapping[str, str]) -> Steps[None]:
    """Note the settings. Write nothing if they are known, so that a start needs no room on the disk."""
    if (yield from noted_settings.steps(now)) != settings:
        puts: list[Ask] = [("put_setting", {"name": name, "value": value}) for name, value in settings.items()]
        yield [("drop_settings", {}), *puts]


@operation()
def noted_settings(_: float) -> Steps[Mapping[str, str]]:
    (rows,) = yield [("find_settings", {})]
    return {row["name"]: row["value"] for row in rows}


@operation(writes=True)
def touch(_: float) -> Steps[None]:
    """Write without a change, so that the write reaches the disk."""
    ((row,),) = yield [("schema_version", {})]
    yield [("touch", {"version": row["version"]})]


@operation(patient=True, timed=True)
def violations(now: float, rule: Rule, audit_seconds: int, most: int) -> Steps[Sequence[str]]:
    (rows,) = yield [(f"broken_{rule}", {**(yield from _times(now, audit_seconds)), "most": most})]
    subjects = [row["subject"] for row in rows]
    return [subject.hex() if isinstance(subject, bytes) else subject for subject in subjects]


@operation(patient=True, timed=True)
def count_violations(now: float, rule: Rule, audit_seconds: int) -> Steps[int]:
    ((row,),) = yield [(f"count_broken_{rule}", (yield from _times(now, audit_seconds)))]
    subjects: int = row["subjects"]
    return subjects


def _times(now: float, audit_seconds: int) -> Steps[Params]:
    noted = yield from noted_settings.steps(now)
    ahead = max(_LEAST_AHEAD, int(noted.get("skew", 0)))
    return {"now": int(now), "audited": int(now) - audit_seconds + ahead, "ahead": ahead}


@operation(patient=True)
def count_rows(_: float, table: Table) -> Steps[int]:
    ((row,),) = yield [("count_rows", {"table": table.value})]
    count: int = row["rows"]
    return count


@operation(patient=True)
def rows(_: float, table: Table, after: MovedRow | None, limit: int) -> Steps[Sequence[MovedRow]]:
    (found,) = yield [(f"rows_of_{table}", {**(after or _BEFORE_ALL), "most": limit})]
    return [dict(row) for row in found]


@operation(patient=True)
def last_row(_: float, table: Table) -> Steps[MovedRow | None]:
    (found,) = yield [(f"last_of_{table}", {})]
    return dict(found[0]) if found else None


@operation(rules=Rules.OWN)
def add_rows(now: float, table: Table, rows: Sequence[MovedRow], *, opens: bool = False) -> Steps[None]:
    """Add rows also to a frozen database, which stays frozen unless this `opens` it."""
    refusing = _TRIGGERS if opens else [each for each in _INSERTS if each["table"] == table.value]
    is_frozen = yield from frozen.steps(now)
    if is_frozen:
        yield [("thaw", trigger) for trigger in refusing]
    yield [(f"add_to_{table}", row) for row in rows]
    if table in _NUMBERED:
        yield [("count_on", {"table": table.value})]
    if is_frozen and not opens:
        yield [("freeze", trigger) for trigger in refusing]


class UpkeepMethods(Runner):
    fence = runs(fence)
    freeze = runs(freeze)
    frozen = runs(frozen)
    thaw = runs(thaw)
    owner = runs(owner)
    make_owner = runs(make_owner)
    follow_owner = runs(follow_owner)
    note_settings = runs(note_settings)
    noted_settings = runs(noted_settings)
    violations = runs(violations)
    count_violations = runs(count_violations)

    count_rows = runs(count_rows)
    rows = runs(rows)
    last_row = runs(last_row)
    add_rows = runs(add_rows)

    async def widen_fence(self, skew: int) -> int | None:
        if await self.read(wider_fence(skew)) is None:  # then a start waits for no lock, and needs no room
            return None
        return await self.write(widen_fence(skew))

    async def ping(self) -> None:
        if await self.frozen():
            raise DatabaseUnavailable(FROZEN)
        await self.write(touch())
