"""A database on each engine, and how to fill it by SQL: one real row of each table, multiplied."""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol

import psycopg

from proof.bench import database as sqlite_rows
from uponce.adapters.database.postgres import PostgresDatabase
from uponce.adapters.database.sqlite import SqliteDatabase
from uponce.adapters.secretbox import KEY_BYTES, AesSecretBox
from uponce.app.ports import Clock, Database

# What differs from the real row, in SQL of both engines: `i` counts from 1, `key_of(timestamp, i)` makes keys, `hex_of`
# names.
Columns = Mapping[str, str]

_SECRETS = AesSecretBox(bytes(KEY_BYTES))
_KEY = "SELECT decode(lpad(to_hex($1), 10, '0'), 'hex') || substring(sha256(($2 || '/{rows}')::bytea) FOR 27)"
_TABLES = ("grants", "assets", "audit")


class Store(Protocol):
    """An open database with its own ways in.

    `sweep` is how many seconds make rows old that are forgotten in one go: those between two sweeps, or of a partition.
    """

    sweep: int

    @property
    def database(self) -> Database: ...

    def fill(self, rows: int, changed: Mapping[str, Columns]) -> None:
        """Add so many rows to each table named. Indexes are built afterwards where that is faster."""

    def add(self, table: str, rows: int, changed: Columns) -> None:
        """Add so many rows at once, indexes and all."""

    def known(self, count: int) -> Sequence[bytes]:
        """Keys of some of the grants."""

    def settle(self) -> None:
        """Write out what is still to be written, so that it is not the next one's to pay."""

    def bytes_a_row(self, rows: int) -> Mapping[str, float]:
        """By table and by `… indexes`."""

    def close(self) -> None: ...


class SqliteStore:
    sweep = 300

    def __init__(self, folder: Path, clock: Clock) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path, self._clock = folder / "uponce.db", clock
        self.database = self._open()

    def fill(self, rows: int, changed: Mapping[str, Columns]) -> None:
        self.database.close()
        sqlite_rows.fill(self._path, rows, changed)
        self.database = self._open()

    def add(self, table: str, rows: int, changed: Columns) -> None:
        sqlite_rows.add(self._path, table, rows, changed)

    def known(self, count: int) -> Sequence[bytes]:
        return sqlite_rows.known_grants(self._path, count)

    def settle(self) -> None:
        with closing(sqlite3.connect(self._path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def bytes_a_row(self, rows: int) -> Mapping[str, float]:
        """Nothing where this SQLite was built without its table of sizes."""
        return {"file": self._path.stat().st_size / rows}

    def close(self) -> None:
        self.database.close()

    def _open(self) -> SqliteDatabase:
        database = SqliteDatabase(self._path, clock=self._clock, secrets=_SECRETS)
        database.open()
        return database


class PostgresStore:
    sweep = 1800

    def __init__(self, url: str, clock: Clock) -> None:
        self.database = PostgresDatabase(url, clock=clock, secrets=_SECRETS, seconds=60)
        self.database.open()
        self._owner = psycopg.connect(url, autocommit=True)

    def fill(self, rows: int, changed: Mapping[str, Columns]) -> None:
        for setting in ("synchronous_commit = off", "maintenance_work_mem = '1GB'"):
            self._owner.execute(f"SET {setting}".encode())
        for table, columns in changed.items():
            # The ledger's parts share the definitions of the whole: they are filled as they stand.
            indexes = [] if table == "grants" else self._dropped_indexes(table)
            self.add(table, rows, columns)
            for statement in indexes:
                self._owner.execute(statement.encode())
        self._owner.execute(b"VACUUM (ANALYZE)")

    def add(self, table: str, rows: int, changed: Columns) -> None:
        names = self._column(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND attidentity = ''", table
        )
        values = ", ".join(changed.get(name, name) for name in names)
        for function in (
            f"key_of(bigint, bigint) RETURNS bytea AS $${_KEY.format(rows=rows)}$$",
            f"hex_of(bigint) RETURNS text AS $$SELECT md5($1 || ' of {rows}')$$",
        ):
            self._owner.execute(f"CREATE OR REPLACE FUNCTION {function} LANGUAGE sql IMMUTABLE".encode())
        self._owner.execute(
            f"INSERT INTO {table} ({', '.join(names)}) SELECT {values} "
            f"FROM generate_series(1::bigint, {rows}) AS i, (SELECT * FROM {table} LIMIT 1) AS one".encode()
        )

    def known(self, count: int) -> Sequence[bytes]:
        return sqlite_rows.sample(self._one, count)

    def settle(self) -> None:
        self._owner.execute(b"CHECKPOINT")

    def bytes_a_row(self, rows: int) -> Mapping[str, float]:
        found: dict[str, float] = {}
        for table in _TABLES:
            row = self._owner.execute(
                "SELECT sum(pg_table_size(part)), sum(pg_indexes_size(part)) FROM (SELECT %(table)s::regclass AS part "
                "UNION SELECT relid FROM pg_partition_tree(%(table)s) WHERE isleaf) AS parts",
                {"table": table},
            ).fetchone()
            assert row is not None
            found |= {table: float(row[0]) / rows, f"{table} indexes": float(row[1]) / rows}
        return found

    def close(self) -> None:
        self.database.close()
        self._owner.close()

    def _dropped_indexes(self, table: str) -> list[str]:
        """Drop them and the constraints that they serve; the statements that bring them back."""
        keys = self._column(
            "SELECT format('ALTER TABLE %%s ADD CONSTRAINT %%I %%s', conrelid::regclass, conname, "
            "pg_get_constraintdef(oid)) FROM pg_constraint WHERE conrelid = %s::regclass AND contype IN ('p', 'u')",
            table,
        )
        constraints = self._column(
            "SELECT conname FROM pg_constraint WHERE conrelid = %s::regclass AND contype IN ('p', 'u')", table
        )
        for name in constraints:
            self._owner.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}".encode())
        others = self._column("SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = %s::regclass", table)
        for name in self._column(
            "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = %s::regclass", table
        ):
            self._owner.execute(f"DROP INDEX {name}".encode())
        return [*keys, *others]

    def _one(self, query: str, *key: bytes) -> bytes:
        row = self._owner.execute(query.format("%s").encode(), key).fetchone()
        assert row is not None
        return bytes(row[0])

    def _column(self, statement: str, table: str) -> list[str]:
        return [name for (name,) in self._owner.execute(statement.encode(), (table,)).fetchall()]
