"""Unfinished uploads that arrive in several requests. Every function runs inside its caller's transaction."""

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from uponce.adapters.database.decisions import spending
from uponce.adapters.database.sqlite import audit, catalog, ledger
from uponce.app.ports import Committed, Draft
from uponce.core.errors import GrantRefused, SeriesGone, SignatureInUse, TooManySeries
from uponce.core.freshness import utc
from uponce.core.refusals import refusal_of
from uponce.core.series import Chunk, Series, check_chunk
from uponce.core.signature import Algorithm
from uponce.core.spans import Span, merged
from uponce.core.values import Caller, Grant, ResourceType

_COLUMNS = "id, cloud, api_key, upload_id, requested, parameters, algorithm, filename, blob_key, created_at, total"
_INSERT = f"INSERT INTO series ({_COLUMNS}) VALUES ({', '.join('?' * len(_COLUMNS.split(', ')))})"
_TABLES = {"series_spans": "series_id", "series_grants": "series_id", "series": "id"}
_PARAMETERS = msgspec.json.Decoder(tuple[tuple[str, str], ...])
_RETRY_SECONDS = 60


def create(connection: sqlite3.Connection, series: Series, grant: Grant, *, per_key: int, in_all: int) -> Series:
    """The new series with its first grant; or the one that has this upload_id already, as it is."""
    if series.upload_id is not None:
        existing = find_named(connection, series.cloud, series.api_key, series.upload_id)
        if existing is not None:
            return existing
    _refuse_many(connection, "AND api_key = ?", (series.api_key,), per_key, "with this API key")
    _refuse_many(connection, "", (), in_all, "on this server")
    connection.execute(_INSERT, _row(series))
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
    record = ledger.find(connection, grant.key)
    refusal = record and refusal_of(record, grant.max_uses)
    if refusal:
        raise refusal
    holders = _count(connection, "series_grants WHERE grant_key = ?", grant.key)
    if holders >= grant.max_uses - (record.uses if record else 0):
        raise SignatureInUse(
            "This signature belongs to another upload, which is not complete yet. Resume that one, or ask for a new "
            "signature.",
            retry_after=_RETRY_SECONDS,
        )
    connection.execute(
        "INSERT INTO series_grants VALUES (?, ?, ?, ?, ?)",
        (series_id, grant.key, grant.timestamp, grant.max_uses, grant.keep_until),
    )
    return get(connection, series_id)


def record(connection: sqlite3.Connection, series_id: str, span: Span, total: int | None) -> Series:
    """The series after the bytes of `span` have become durable, and the file's size known if it is given."""
    series = get(connection, series_id)
    check_chunk(series, Chunk(span, total))
    if total is not None:
        connection.execute("UPDATE series SET total = ? WHERE id = ?", (total, series_id))
    connection.execute("DELETE FROM series_spans WHERE series_id = ?", (series_id,))
    connection.executemany(
        "INSERT INTO series_spans VALUES (?, ?, ?)",
        [(series_id, known.start, known.end) for known in merged([*series.spans, span])],
    )
    return get(connection, series_id)


def commit(connection: sqlite3.Connection, series_id: str, draft: Draft, caller: Caller, now: float) -> Committed:
    """Spend every grant, publish, note, end the series: all of it, or by the caller's rollback none of it.

    Watermarks are not asked: they were when each grant joined, and since then its row could not be purged.
    """
    series = get(connection, series_id)
    for grant in series.grants:
        _spend(connection, grant, now, len(series.grants))
    committed = catalog.put(connection, draft, now)
    for grant in series.grants:
        audit.write(connection, grant, spending(committed, caller, now))
    _delete(connection, series_id)
    return committed


def get(connection: sqlite3.Connection, series_id: str) -> Series:
    series = find(connection, series_id)
    if series is None:
        raise SeriesGone(
            "This upload is complete, or was given up: nothing more is taken for it. To send another file, begin with "
            "a new signature."
        )
    return series


def find(connection: sqlite3.Connection, series_id: str) -> Series | None:
    return _one(connection, "id = ?", series_id)


def find_named(connection: sqlite3.Connection, cloud: str, api_key: str, upload_id: str) -> Series | None:
    return _one(connection, "cloud = ? AND api_key = ? AND upload_id = ?", cloud, api_key, upload_id)


def end(connection: sqlite3.Connection, series_id: str) -> bool:
    """Whether there was one to end."""
    found = find(connection, series_id) is not None
    _delete(connection, series_id)
    return found


def end_begun_before(connection: sqlite3.Connection, moment: float, rows: int) -> Sequence[str]:
    """End at most so many, the oldest first; the keys of their blobs."""
    old = connection.execute(
        "SELECT id, blob_key FROM series WHERE created_at < ? ORDER BY created_at LIMIT ?", (moment, rows)
    ).fetchall()
    for series_id, _ in old:
        _delete(connection, series_id)
    return [blob_key for _, blob_key in old]


def end_all(connection: sqlite3.Connection) -> None:
    for table in _TABLES:
        connection.execute(f"DELETE FROM {table}")


def blob_keys(connection: sqlite3.Connection) -> frozenset[str]:
    return frozenset(key for (key,) in connection.execute("SELECT blob_key FROM series"))


def _spend(connection: sqlite3.Connection, grant: Grant, now: float, of: int) -> None:
    ledger.check_key(connection, grant, watermark=False)
    try:
        # It may have been kept beyond its time; the next purge drops it.
        ledger.spend(connection, replace(grant, keep_until=max(grant.keep_until, int(now))), now)
    except GrantRefused as refusal:
        if of == 1:
            raise
        raise type(refusal)(
            f"{refusal.message} It is that of {utc(grant.timestamp)}, one of {of} which this upload was sent with."
        ) from None


def _refuse_many(connection: sqlite3.Connection, which: str, values: tuple[str, ...], limit: int, where: str) -> None:
    if _count(connection, f"series WHERE 1 {which}", *values) >= limit:
        raise TooManySeries(
            f"{limit} uploads {where} are unfinished, no more are allowed. Finish one, send the file in one request, "
            "or try again later.",
            retry_after=_RETRY_SECONDS,
        )


def _count(connection: sqlite3.Connection, rest: str, *values: object) -> int:
    count: int = connection.execute(f"SELECT count(*) FROM {rest}", values).fetchone()[0]
    return count


def _delete(connection: sqlite3.Connection, series_id: str) -> None:
    for table, column in _TABLES.items():
        connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (series_id,))


def _row(series: Series) -> tuple[Any, ...]:
    return (
        series.id,
        series.cloud,
        series.api_key,
        series.upload_id,
        series.requested,
        msgspec.json.encode(series.parameters).decode(),
        series.algorithm,
        series.filename,
        series.blob_key,
        series.created_at,
        series.total,
    )


def _one(connection: sqlite3.Connection, where: str, *values: str) -> Series | None:
    row = connection.execute(f"SELECT {_COLUMNS} FROM series WHERE {where}", values).fetchone()
    if row is None:
        return None
    series_id, cloud, api_key, upload_id, requested, parameters, algorithm, filename, blob_key, created_at, total = row
    spans = connection.execute(
        "SELECT start, stop FROM series_spans WHERE series_id = ? ORDER BY start", (series_id,)
    ).fetchall()
    grants = connection.execute(
        "SELECT grant_key, timestamp, max_uses, keep_until FROM series_grants WHERE series_id = ?", (series_id,)
    ).fetchall()
    return Series(
        id=series_id,
        cloud=cloud,
        api_key=api_key,
        upload_id=upload_id,
        requested=None if requested is None else ResourceType(requested),
        parameters=_PARAMETERS.decode(parameters),
        algorithm=Algorithm(algorithm),
        filename=filename,
        blob_key=blob_key,
        created_at=created_at,
        total=total,
        spans=tuple(Span(start, stop) for start, stop in spans),
        grants=tuple(Grant(key, cloud, api_key, timestamp, uses, until) for key, timestamp, uses, until in grants),
    )
