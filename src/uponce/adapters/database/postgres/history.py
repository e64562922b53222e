"""Which history of PostgreSQL a connection sees: of one cluster, and in it of one timeline.

A standby that was promoted and a recovery to a point in time begin a new timeline; a dump that was restored lies in
another cluster. Either may lack the last uses of signatures. So the ledger tells in which history it was last used.
"""

from contextlib import suppress

import psycopg

from uponce.adapters.database.postgres.connection import Connection

_SEEN = """
SELECT (SELECT system_identifier FROM pg_control_system()) || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8)
"""
_NOT_TOLD = (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedFunction, psycopg.errors.FeatureNotSupported)


async def seen(connection: Connection) -> str | None:
    """None where the role, or an engine that only speaks PostgreSQL's protocol, does not tell. Outside transactions."""
    with suppress(*_NOT_TOLD):
        row = await (await connection.execute(_SEEN)).fetchone()
        return None if row is None else str(row[0])
    return None


async def recorded(connection: Connection) -> str | None:
    """None before the first use."""
    row = await (await connection.execute("SELECT name FROM history")).fetchone()
    return None if row is None else str(row[0])


async def record(connection: Connection, name: str) -> None:
    await connection.execute("DELETE FROM history")
    await connection.execute("INSERT INTO history VALUES (%s)", (name,))
