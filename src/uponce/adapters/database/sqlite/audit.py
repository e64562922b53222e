"""The audit: what became of each grant. Its rows outlive the ledger's."""

import sqlite3
from collections.abc import Sequence

from uponce.adapters.database.rows import AUDIT_COLUMNS, HISTORY_COLUMNS, audit_of, audit_row, refusal_values
from uponce.core.values import AuditRecord, Grant

_WRITE = f"INSERT INTO audit ({AUDIT_COLUMNS}) VALUES ({', '.join('?' * len(AUDIT_COLUMNS.split(', ')))})"


def write(connection: sqlite3.Connection, grant: Grant, record: AuditRecord) -> None:
    connection.execute(_WRITE, audit_row(grant, record))


def write_refusal(connection: sqlite3.Connection, grant: Grant, record: AuditRecord, most: int) -> None:
    """Add a row. When the grant has `most` rows of refusals, count all further refusals in one more row."""
    rows, last = connection.execute(
        "SELECT count(*), max(id) FROM audit WHERE grant_key = ? AND event = 'refused'", (grant.key,)
    ).fetchone()
    if rows <= most:
        write(connection, grant, record)
        return
    connection.execute(
        "UPDATE audit SET count = count + 1, at = ?, code = ?, address = ?, request_id = ? WHERE id = ?",
        (*refusal_values(record), last),
    )


def history(connection: sqlite3.Connection, key: bytes, limit: int) -> Sequence[AuditRecord]:
    """Oldest first."""
    rows = connection.execute(
        f"SELECT {HISTORY_COLUMNS} FROM audit WHERE grant_key = ? ORDER BY id LIMIT ?", (key, limit)
    )
    return [audit_of(row) for row in rows]


def purge(connection: sqlite3.Connection, before: float, rows: int) -> int:
    """Drop at most so many records that are older; how many."""
    return connection.execute(
        "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < ? ORDER BY at LIMIT ?)", (before, rows)
    ).rowcount


def newest_moment(connection: sqlite3.Connection) -> int | None:
    """What the clock has surely passed: a use or refusal that was written down, a watermark."""
    newest: int | None = connection.execute(
        "SELECT max(moment) FROM (SELECT max(at) AS moment FROM audit UNION ALL SELECT max(watermark) FROM api_keys)"
    ).fetchone()[0]
    return newest
