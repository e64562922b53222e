"""Unfinished uploads that arrive in several requests. Every function runs inside its caller's transaction."""

import sqlite3
from collections.abc import Mapping, Sequence

from uponce.adapters.database.decisions import (
    check_joins,
    check_room,
    kept_until,
    refuse_one_of,
    series_gone,
    spending,
)
from uponce.adapters.database.rows import PART_COLUMNS, SERIES_COLUMNS, part_of, part_row, series_of, series_row
from uponce.adapters.database.sqlite import audit, catalog, ledger, replies
from uponce.app.ports import Committed, Draft
from uponce.core.errors import GrantRefused
from uponce.core.series import Chunk, Series, StoredPart, check_parts, grown
from uponce.core.spans import Span
from uponce.core.values import Caller, Grant

_INSERT = f"INSERT INTO series ({SERIES_COLUMNS}) VALUES ({', '.join('?' * len(SERIES_COLUMNS.split(', ')))})"
_PARTS = f"""
SELECT {PART_COLUMNS} FROM series_parts WHERE series_id = ?
  AND start >= coalesce((SELECT max(start) FROM series_parts WHERE series_id = ? AND start <= ?), 0)
  AND stop > ? AND start < ? ORDER BY start LIMIT ?
"""
# "The slowest" is the least rate over a series' whole life; of equally slow ones the oldest.
_SLOWEST = """
SELECT id, blob_key FROM series
WHERE coalesce(api_key = :api_key, true) AND arrived < :rate * max(:now - created_at, :seconds)
  AND (total IS NULL OR arrived < total)
ORDER BY arrived * 1.0 / max(:now - created_at, :seconds), created_at, rowid LIMIT 1
"""
_TABLES = {"series_parts": "series_id", "series_spans": "series_id", "series_grants": "series_id", "series": "id"}


def create(connection: sqlite3.Connection, series: Series, grant: Grant, *, per_key: int, in_all: int) -> Series:
    """The new series with its first grant; or the one that has this upload_id already, as it is."""
    if series.upload_id is not None:
        existing = find_named(connection, series.cloud, series.api_key, series.upload_id)
        if existing is not None:
            return existing
    check_room(_count(connection, "series WHERE api_key = ?", series.api_key), per_key, "with this API key")
    check_room(_count(connection, "series"), in_all, "on this server")
    connection.execute(_INSERT, series_row(series))
    return join(connection, series.id, grant)


def join(connection: sqlite3.Connection, series_id: str, grant: Grant) -> Series:
    """The series, which the grant belongs to from now on: until it ends, the ledger's row of the grant stays.

    SignatureUsed, SignatureRevoked and StaleRequest as for a commit; SignatureInUse when other series hold all the uses
    that are left.
    """
    series = get(connection, series_id)
    if series.has(grant):
        return series
    ledger.check_key(connection, grant)
    holders = _count(connection, "series_grants WHERE grant_key = ?", grant.key)
    check_joins(grant, ledger.find(connection, grant.key), holders)
    connection.execute(
        "INSERT INTO series_grants VALUES (?, ?, ?, ?, ?)",
        (series_id, grant.key, grant.timestamp, grant.max_uses, grant.keep_until),
    )
    return get(connection, series_id)


def record(
    connection: sqlite3.Connection, series_id: str, span: Span, total: int | None, parts: Sequence[StoredPart]
) -> Series:
    """The series after the bytes of `span` have become durable, and the file's size known if it is given."""
    before = get(connection, series_id)
    series = grown(before, Chunk(span, total))
    check_parts(before, span, parts)
    connection.executemany(
        "INSERT INTO series_parts VALUES (?, ?, ?, ?, ?)", [part_row(series_id, part) for part in parts]
    )
    connection.execute(
        "UPDATE series SET total = ?, arrived = ? WHERE id = ?", (series.total, series.arrived, series_id)
    )
    connection.execute("DELETE FROM series_spans WHERE series_id = ?", (series_id,))
    connection.executemany(
        "INSERT INTO series_spans VALUES (?, ?, ?)", [(series_id, known.start, known.end) for known in series.spans]
    )
    return series


def commit(connection: sqlite3.Connection, series_id: str, draft: Draft, caller: Caller, now: float) -> Committed:
    """Spend every grant, publish, note, end the series: all of it, or by the caller's rollback none of it.

    Watermarks are not asked: they were when each grant joined, and since then its row could not be purged.
    """
    series = get(connection, series_id)
    catalog.refuse_condemned_blob(connection, draft.blob_key)
    _spend(connection, series, now)
    committed = catalog.put(connection, draft, now)
    for grant in series.grants:
        audit.write(connection, grant, spending(committed, caller, now))
        replies.keep(connection, kept_until(grant, now), draft, committed)
    _delete(connection, series_id)
    return committed


def get(connection: sqlite3.Connection, series_id: str) -> Series:
    series = find(connection, series_id)
    if series is None:
        raise series_gone()
    return series


def find(connection: sqlite3.Connection, series_id: str) -> Series | None:
    return _one(connection, "id = ?", series_id)


def find_named(connection: sqlite3.Connection, cloud: str, api_key: str, upload_id: str) -> Series | None:
    return _one(connection, "cloud = ? AND api_key = ? AND upload_id = ?", cloud, api_key, upload_id)


def find_of(connection: sqlite3.Connection, grant_key: bytes) -> Sequence[Series]:
    ids = connection.execute("SELECT series_id FROM series_grants WHERE grant_key = ?", (grant_key,)).fetchall()
    return [series for (series_id,) in ids if (series := find(connection, series_id))]


def parts(connection: sqlite3.Connection, series_id: str, span: Span, limit: int) -> Sequence[StoredPart]:
    """Those that hold bytes of the span, in order, at most so many."""
    rows = connection.execute(_PARTS, (series_id, series_id, span.start, span.start, span.end, limit))
    return [part_of(row) for row in rows.fetchall()]


def end(connection: sqlite3.Connection, series_id: str, if_empty: bool) -> bool:
    """Whether there was one to end."""
    found = find(connection, series_id)
    if found is None or (if_empty and found.spans):
        return False
    _delete(connection, series_id)
    return True


def note_arrival(connection: sqlite3.Connection, series_id: str, size: int) -> None:
    connection.execute("UPDATE series SET arrived = arrived + ? WHERE id = ?", (size, series_id))


def end_slowest(
    connection: sqlite3.Connection, api_key: str, per_key: int, in_all: int, pace: Mapping[str, int]
) -> Sequence[str]:
    """End the slowest series where a limit is reached: one of the key, else one in all; its blob's key."""
    if _count(connection, "series WHERE api_key = ?", api_key) >= per_key:
        owner: str | None = api_key
    elif _count(connection, "series") >= in_all:
        owner = None
    else:
        return ()
    found = connection.execute(_SLOWEST, {**pace, "api_key": owner}).fetchall()
    for series_id, _ in found:
        _delete(connection, series_id)
    return [blob_key for _, blob_key in found]


def end_begun_before(connection: sqlite3.Connection, moment: float, empty: float, rows: int) -> Sequence[str]:
    """End at most so many that began before a moment, or before `empty` without a byte since; their blobs' keys."""
    old = connection.execute(
        "SELECT id, blob_key FROM series WHERE created_at < ? OR (created_at < ? AND arrived = 0) "
        "ORDER BY created_at LIMIT ?",
        (moment, empty, rows),
    ).fetchall()
    for series_id, _ in old:
        _delete(connection, series_id)
    return [blob_key for _, blob_key in old]


def end_all(connection: sqlite3.Connection) -> None:
    for table in _TABLES:
        connection.execute(f"DELETE FROM {table}")


def blob_keys(connection: sqlite3.Connection) -> frozenset[str]:
    return frozenset(key for (key,) in connection.execute("SELECT blob_key FROM series"))


def _spend(connection: sqlite3.Connection, series: Series, now: float) -> None:
    for grant in series.grants:
        ledger.check_key(connection, grant, watermark=False)
        try:
            ledger.spend(connection, kept_until(grant, now), now)
        except GrantRefused as refusal:
            raise refuse_one_of(series, grant, refusal) from None


def _count(connection: sqlite3.Connection, rest: str, *values: object) -> int:
    count: int = connection.execute(f"SELECT count(*) FROM {rest}", values).fetchone()[0]
    return count


def _delete(connection: sqlite3.Connection, series_id: str) -> None:
    for table, column in _TABLES.items():
        connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (series_id,))


def _one(connection: sqlite3.Connection, where: str, *values: str) -> Series | None:
    row = connection.execute(f"SELECT {SERIES_COLUMNS} FROM series WHERE {where}", values).fetchone()
    if row is None:
        return None
    series_id = row[0]
    spans = connection.execute(
        "SELECT start, stop FROM series_spans WHERE series_id = ? ORDER BY start", (series_id,)
    ).fetchall()
    grants = connection.execute(
        "SELECT grant_key, timestamp, max_uses, keep_until FROM series_grants WHERE series_id = ?", (series_id,)
    ).fetchall()
    return series_of(row, spans, grants)
