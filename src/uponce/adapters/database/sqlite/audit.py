"""The audit: what became of each grant. Its rows outlive the ledger's."""

import sqlite3
from collections.abc import Sequence

from uponce.adapters.database.rows import AUDIT_COLUMNS, HISTORY_COLUMNS, audit_of, audit_row
from uponce.core.values import AuditRecord, Grant


def write(connection: sqlite3.Connection, grant: Grant, record: AuditRecord) -> None:
    connection.execute(
        f"INSERT INTO audit ({AUDIT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", audit_row(grant, record)
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
