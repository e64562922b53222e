"""The audit: what became of each grant. Its rows outlive the ledger's."""

import sqlite3
from collections.abc import Sequence

from uponce.core.values import AuditEvent, AuditRecord, Caller, Grant


def write(connection: sqlite3.Connection, grant: Grant, record: AuditRecord) -> None:
    connection.execute(
        "INSERT INTO audit (at, grant_key, cloud, api_key, event, code, asset_id, public_id, address, request_id) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            record.at,
            grant.key,
            grant.cloud,
            grant.api_key,
            record.event,
            record.code,
            record.asset_id,
            record.public_id,
            record.caller.address,
            record.caller.request_id,
        ),
    )


def history(connection: sqlite3.Connection, key: bytes, limit: int) -> Sequence[AuditRecord]:
    """Oldest first."""
    rows = connection.execute(
        "SELECT at, event, code, asset_id, public_id, address, request_id FROM audit WHERE grant_key = ? "
        "ORDER BY id LIMIT ?",
        (key, limit),
    )
    return [
        AuditRecord(at, AuditEvent(event), Caller(address, request_id), code, asset_id, public_id)
        for at, event, code, asset_id, public_id, address, request_id in rows
    ]


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
