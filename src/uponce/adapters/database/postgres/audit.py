"""The audit: what became of each grant. Its rows outlive the ledger's."""

from collections.abc import Sequence
from typing import cast

from uponce.adapters.database.postgres.connection import Connection
from uponce.adapters.database.rows import AUDIT_COLUMNS, HISTORY_COLUMNS, audit_of, audit_row, refusal_values
from uponce.core.values import AuditRecord, Grant

_WRITE = f"INSERT INTO audit ({AUDIT_COLUMNS}) VALUES ({', '.join(['%s'] * len(AUDIT_COLUMNS.split(', ')))})"
_COUNT = """
UPDATE audit SET count = audit.count + 1, at = %s, code = %s, address = %s, request_id = %s
FROM (SELECT count(*) AS rows, max(id) AS last FROM audit WHERE grant_key = %s AND event = 'refused') AS known
WHERE audit.id = known.last AND known.rows > %s
RETURNING audit.id
"""


async def write(connection: Connection, grant: Grant, record: AuditRecord) -> None:
    await connection.execute(_WRITE, audit_row(grant, record))


async def write_refusal(connection: Connection, grant: Grant, record: AuditRecord, most: int) -> None:
    """Add a row. When the grant has `most` rows of refusals, count all further refusals in one more row.

    Servers that do so at the same moment may add a row each.
    """
    counted = await connection.execute(_COUNT, (*refusal_values(record), grant.key, most))
    if await counted.fetchone() is None:
        await write(connection, grant, record)


async def history(connection: Connection, key: bytes, limit: int) -> Sequence[AuditRecord]:
    """Oldest first."""
    rows = await connection.execute(
        f"SELECT {HISTORY_COLUMNS} FROM audit WHERE grant_key = %s ORDER BY id LIMIT %s", (key, limit)
    )
    return [audit_of(row) for row in await rows.fetchall()]


async def purge(connection: Connection, before: float, rows: int) -> int:
    """Drop at most so many records that are older; how many. Compared with a float, no index would be used."""
    dropped = await connection.execute(
        "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < %s ORDER BY at LIMIT %s) RETURNING id",
        (int(before), rows),
    )
    return len(await dropped.fetchall())


async def newest_moment(connection: Connection) -> int | None:
    """What the clock has surely passed: a use or refusal that was written down, a watermark."""
    rows = await connection.execute(
        "SELECT greatest((SELECT max(at) FROM audit), (SELECT max(watermark) FROM api_keys))"
    )
    ((newest,),) = await rows.fetchall()
    return cast("int | None", newest)
