"""Rows that move from engine to engine, see tables.py. Every function runs inside its caller's transaction."""

from collections.abc import Sequence

from uponce.adapters.database.postgres.connection import Connection
from uponce.adapters.database.tables import LAYOUTS
from uponce.app.ports import Row, Table

_NUMBERED = (Table.ASSETS, Table.AUDIT, Table.KEYS)
_MARKS = {"allow_v1": "%s::int::boolean"}  # SQLite has no booleans


async def count(connection: Connection, table: Table) -> int:
    ((found,),) = await (await connection.execute(LAYOUTS[table].count)).fetchall()
    return int(found)


async def rows(connection: Connection, table: Table, after: Row | None, limit: int) -> Sequence[Row]:
    layout = LAYOUTS[table]
    found = await connection.execute(layout.select("%s", after), layout.bound(after, limit))
    return await found.fetchall()


async def last(connection: Connection, table: Table) -> Row | None:
    return await (await connection.execute(LAYOUTS[table].last)).fetchone()


async def add(connection: Connection, table: Table, new: Sequence[Row]) -> None:
    columns = [column.rpartition(".")[2] for column in LAYOUTS[table].columns.split(", ")]
    marks = ", ".join(_MARKS.get(column, "%s") for column in columns)
    await connection.cursor().executemany(
        f"INSERT INTO {table} ({', '.join(columns)}) OVERRIDING SYSTEM VALUE VALUES ({marks})", new
    )
    if table in _NUMBERED:  # those to come get greater numbers
        await connection.execute(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id)) FROM {table}")
