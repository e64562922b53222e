"""Rows that move from engine to engine, see tables.py. Every function runs inside its caller's transaction."""

import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from uponce.adapters.database.tables import LAYOUTS, Layout
from uponce.app.ports import Row, Table

_LAYOUTS = {**LAYOUTS, Table.KEYS: replace(LAYOUTS[Table.KEYS], source="(SELECT rowid AS id, * FROM api_keys)")}
_COLUMNS = {table: layout.columns for table, layout in LAYOUTS.items()} | {
    Table.KEYS: LAYOUTS[Table.KEYS].columns.replace("id", "rowid", 1),
    Table.REPLIES: "grant_key, key_hash, sha256, committed",  # how long follows from the grant
}


def count(connection: sqlite3.Connection, table: Table) -> int:
    (found,) = connection.execute(_LAYOUTS[table].count).fetchone()
    return int(found)


def rows(connection: sqlite3.Connection, table: Table, after: Row | None, limit: int) -> Sequence[Row]:
    layout: Layout = _LAYOUTS[table]
    return connection.execute(layout.select("?", after), layout.bound(after, limit)).fetchall()


def last(connection: sqlite3.Connection, table: Table) -> Row | None:
    row: Row | None = connection.execute(_LAYOUTS[table].last).fetchone()
    return row


def add(connection: sqlite3.Connection, table: Table, new: Sequence[Row]) -> None:
    columns = _COLUMNS[table]
    width = len(columns.split(", "))
    connection.executemany(
        f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * width)})", [row[:width] for row in new]
    )
