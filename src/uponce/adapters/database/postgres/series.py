"""Unfinished uploads that arrive in several requests. Every function runs inside its caller's transaction.

Whatever changes a series, or depends on its not changing, holds its row; nobody holds two of them and waits. For the
order of locks see locks.py.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from uponce.adapters.database.decisions import (
    check_joins,
    check_room,
    kept_until,
    publication,
    refuse_condemned,
    refuse_one_of,
    refuse_spent,
    series_gone,
    spending,
)
from uponce.adapters.database.postgres import audit, catalog, clock, ledger, locks, replies
from uponce.adapters.database.postgres.clock import Moment
from uponce.adapters.database.postgres.connection import Connection
from uponce.adapters.database.rows import PART_COLUMNS, SERIES_COLUMNS, part_of, part_row, series_of, series_row
from uponce.app.ports import Committed, Draft
from uponce.core.series import Chunk, Series, StoredPart, check_parts, grown
from uponce.core.spans import Span
from uponce.core.values import Caller, Grant

_INSERT = f"INSERT INTO series ({SERIES_COLUMNS}) VALUES ({', '.join(['%s'] * len(SERIES_COLUMNS.split(', ')))})"
_GRANTS = """
SELECT json_agg(json_build_array(encode(grant_key, 'hex'), timestamp, max_uses, keep_until) ORDER BY grant_key)
FROM series_grants WHERE series_id = id
"""
_SELECT = f"SELECT {SERIES_COLUMNS}, spans, ({_GRANTS}) FROM series"
_INSERT_PART = f"INSERT INTO series_parts (series_id, {PART_COLUMNS}) VALUES (%s, %s, %s, %s, %s)"
_PARTS = f"""
SELECT {PART_COLUMNS} FROM series_parts WHERE series_id = %s
  AND start >= coalesce((SELECT max(start) FROM series_parts WHERE series_id = %s AND start <= %s), 0)
  AND stop > %s AND start < %s ORDER BY start LIMIT %s
"""
_DECODE_GRANTS = msgspec.json.Decoder(tuple[tuple[str, int, int, int], ...])

# One that is just being completed is left alone; it stays for the next time, should that fail.
_END_OLD = """
DELETE FROM series WHERE id IN (
  SELECT id FROM series WHERE created_at < %s OR (created_at < %s AND arrived = 0)
  ORDER BY created_at LIMIT %s FOR UPDATE SKIP LOCKED
) RETURNING blob_key
"""
# "The slowest" is the least rate over a series' whole life; of equally slow ones the oldest.
_END_SLOWEST = """
DELETE FROM series WHERE id IN (
  SELECT id FROM series
  WHERE coalesce(api_key = %(api_key)s, true) AND arrived < %(rate)s * greatest(%(now)s - created_at, %(seconds)s)
    AND (total IS NULL OR arrived < total)
  ORDER BY arrived * 1.0 / greatest(%(now)s - created_at, %(seconds)s), created_at, id
  LIMIT 1 FOR UPDATE SKIP LOCKED
) RETURNING blob_key
"""
_COUNT = "SELECT count(*) FILTER (WHERE api_key = %s), count(*) FROM series"


async def create(connection: Connection, series: Series, grant: Grant, *, per_key: int, in_all: int) -> Series:
    """The new series with its first grant; or the one that has this upload_id already, as it is."""
    await connection.execute(locks.BEGIN_SERIES)
    counted = await connection.execute(_COUNT, (series.api_key,))
    if series.upload_id is not None:
        existing = await find_named(connection, series.cloud, series.api_key, series.upload_id)
        if existing is not None:
            return existing
    ((of_key, all_),) = await counted.fetchall()
    check_room(of_key, per_key, "with this API key")
    check_room(all_, in_all, "on this server")
    await connection.execute(_INSERT, series_row(series))
    return await join(connection, series.id, grant)


async def join(connection: Connection, series_id: str, grant: Grant) -> Series:
    """The series, which the grant belongs to from now on: until it ends, the ledger's row of the grant stays."""
    series = await _hold(connection, series_id)
    if series.has(grant):
        return series
    await locks.hold(connection, [locks.of_joins(grant.key)])
    asked_key = await ledger.ask_watermarks(connection, [grant])
    counted = await connection.execute("SELECT count(*) FROM series_grants WHERE grant_key = %s", (grant.key,))
    record = await ledger.find(connection, grant.key)
    ((holders,),) = await counted.fetchall()
    ledger.check_key(grant, await ledger.watermarks(asked_key))
    check_joins(grant, record, holders)
    await connection.execute(
        "INSERT INTO series_grants (series_id, grant_key, timestamp, max_uses, keep_until) VALUES (%s, %s, %s, %s, %s)",
        (series_id, grant.key, grant.timestamp, grant.max_uses, grant.keep_until),
    )
    return await _get(connection, series_id)


async def record(
    connection: Connection, series_id: str, span: Span, total: int | None, parts: Sequence[StoredPart]
) -> Series:
    """The series after the bytes of `span` have become durable, and the file's size known if it is given."""
    before = await _hold(connection, series_id)
    series = grown(before, Chunk(span, total))
    check_parts(before, span, parts)
    for part in parts:
        await connection.execute(_INSERT_PART, part_row(series_id, part))
    await connection.execute(
        "UPDATE series SET total = %s, arrived = %s, spans = spans + int8multirange(int8range(%s, %s)) WHERE id = %s",
        (series.total, series.arrived, span.start, span.end, series_id),
    )
    return series


async def commit(connection: Connection, series_id: str, draft: Draft, caller: Caller, moment: Moment) -> Committed:
    """Spend every grant, publish, note, end the series: all of it, or by the caller's rollback none of it.

    Watermarks are not asked: they were when each grant joined, and since then its row could not be purged.
    """
    series = await _hold(connection, series_id)
    await locks.hold(connection, [locks.of_name(draft.name)])
    asked_now = await moment.ask(connection)
    asked_keys = await ledger.ask_watermarks(connection, series.grants)
    asked_blob = await catalog.ask_condemned(connection, [draft.blob_key])
    asked_asset = await catalog.ask(connection, draft.name)

    now = await clock.answer(asked_now)
    known = await ledger.watermarks(asked_keys)
    if await catalog.condemned_among(asked_blob):
        raise refuse_condemned()
    for grant in series.grants:
        ledger.check_key(grant, dict.fromkeys(known))
    await _spend(connection, series, now)

    committed = publication(draft, await catalog.answer(asked_asset), now)
    if not committed.existing:
        await catalog.put(connection, committed.asset)
    for grant in series.grants:
        await audit.write(connection, grant, spending(committed, caller, now))
        await replies.keep(connection, kept_until(grant, now), draft, committed)
    await connection.execute("DELETE FROM series WHERE id = %s", (series_id,))
    return committed


async def find(connection: Connection, series_id: str) -> Series | None:
    return await _one(connection, "id = %s", series_id)


async def find_named(connection: Connection, cloud: str, api_key: str, upload_id: str) -> Series | None:
    return await _one(connection, "cloud = %s AND api_key = %s AND upload_id = %s", cloud, api_key, upload_id)


async def find_of(connection: Connection, grant_key: bytes) -> Sequence[Series]:
    rows = await connection.execute("SELECT series_id FROM series_grants WHERE grant_key = %s", (grant_key,))
    return [series for (series_id,) in await rows.fetchall() if (series := await find(connection, series_id))]


async def parts(connection: Connection, series_id: str, span: Span, limit: int) -> Sequence[StoredPart]:
    """Those that hold bytes of the span, in order, at most so many."""
    rows = await connection.execute(_PARTS, (series_id, series_id, span.start, span.start, span.end, limit))
    return [part_of(row) for row in await rows.fetchall()]


async def end(connection: Connection, series_id: str, if_empty: bool) -> bool:
    """Whether there was one to end."""
    ended = await connection.execute(
        "DELETE FROM series WHERE id = %s AND (isempty(spans) OR NOT %s) RETURNING id", (series_id, if_empty)
    )
    return await ended.fetchone() is not None


async def note_arrival(connection: Connection, series_id: str, size: int) -> None:
    await connection.execute("UPDATE series SET arrived = arrived + %s WHERE id = %s", (size, series_id))


async def end_slowest(
    connection: Connection, api_key: str, per_key: int, in_all: int, pace: Mapping[str, int]
) -> Sequence[str]:
    """End the slowest series where a limit is reached: one of the key, else one in all; its blob's key."""
    counted = await connection.execute(_COUNT, (api_key,))
    ((of_key, all_),) = await counted.fetchall()
    if of_key < per_key and all_ < in_all:
        return ()
    ended = await connection.execute(_END_SLOWEST, {**pace, "api_key": api_key if of_key >= per_key else None})
    return [blob_key for (blob_key,) in await ended.fetchall()]


async def end_begun_before(connection: Connection, moment: float, empty: float, rows: int) -> Sequence[str]:
    """End at most so many that began before a moment, or before `empty` without a byte since; their blobs' keys."""
    ended = await connection.execute(_END_OLD, (int(moment), int(empty), rows))
    return [blob_key for (blob_key,) in await ended.fetchall()]


async def end_all(connection: Connection) -> None:
    await connection.execute("DELETE FROM series")


async def blob_keys(connection: Connection) -> frozenset[str]:
    rows = await connection.execute("SELECT blob_key FROM series")
    return frozenset(key for (key,) in await rows.fetchall())


async def _hold(connection: Connection, series_id: str) -> Series:
    """Until the end of the transaction nobody else changes it. SeriesGone."""
    await connection.execute("SELECT FROM series WHERE id = %s FOR UPDATE", (series_id,))
    # A statement of its own: the one above may have waited for a rival whose grants its own snapshot does not show.
    return await _get(connection, series_id)


async def _get(connection: Connection, series_id: str) -> Series:
    series = await find(connection, series_id)
    if series is None:
        raise series_gone()
    return series


async def _spend(connection: Connection, series: Series, now: float) -> None:
    """Take a use of each grant, in the order of their keys; the first that has none left is the refusal."""
    asked = [await ledger.ask_spend(connection, kept_until(grant, now), now) for grant in series.grants]
    for grant, cursor in zip(series.grants, asked, strict=True):
        if await cursor.fetchone() is None:
            refusal = refuse_spent(await ledger.find(connection, grant.key), grant)
            raise refuse_one_of(series, grant, refusal)


async def _one(connection: Connection, where: str, *values: str) -> Series | None:
    rows = await connection.execute(f"{_SELECT} WHERE {where}", values)
    row: tuple[Any, ...] | None = await rows.fetchone()
    if row is None:
        return None
    *columns, spans, grants = row
    known = _DECODE_GRANTS.decode(grants or "[]")
    return series_of(
        tuple(columns),
        spans=[(span.lower, span.upper) for span in spans],
        grants=[(bytes.fromhex(key), timestamp, uses, until) for key, timestamp, uses, until in known],
    )
