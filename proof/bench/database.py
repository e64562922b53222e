"""Full databases, quickly: one real row of each table, multiplied by SQL."""

import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

from uponce.core.signature import dated

# Numbers spread evenly over the space of random keys, so that new keys fall among them all.
_SPAN = 2**63

Columns = Mapping[str, str]

_HEX = "hex_of(i)"
_TIME = "timestamp - 1000000 + i / 16"
_USED: Mapping[str, Columns] = {
    "grants": {"grant_key": f"key_of({_TIME}, i)", "timestamp": _TIME, "keep_until": "keep_until * 2"},
    "assets": {"id": "i + 1000", "public_id": _HEX, "asset_id": _HEX, "version_id": _HEX, "blob_key": _HEX},
    "audit": {"id": "i + 1000", "grant_key": "key_of(at - 1000000 + i / 16, i)", "asset_id": _HEX, "public_id": _HEX},
}


def fill(path: Path, rows: int, used: Mapping[str, Columns] = _USED) -> None:
    """Add so many used signatures with their assets and audit rows to the file.

    No server may write the file at that time.
    """
    with closing(_open(path, rows)) as connection:
        for setting in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -1000000"):
            connection.execute(f"PRAGMA {setting}")
        indexes = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql > ''").fetchall()
        for name, _ in indexes:
            connection.execute(f"DROP INDEX {name}")
        for table, changed in used.items():
            _multiply(connection, table, rows, changed)
        for _, statement in indexes:
            connection.execute(statement)
        connection.execute("PRAGMA journal_mode = WAL")
    os.sync()  # or the disk is busy with it while uploads are measured


def add_expiring(path: Path, rows: int, seconds: float) -> None:
    """Add so many used signatures to the file of a running server; their time is over one by one from now on."""
    due = f"{int(time.time())} + i * {seconds} / {rows}"
    signed = f"timestamp - 10000000 + i * {int(seconds)} / {rows}"
    changed = {"grant_key": f"key_of({signed}, i)", "timestamp": signed, "keep_until": f"CAST({due} AS INTEGER)"}
    add(path, "grants", rows, changed)


def add(path: Path, table: str, rows: int, changed: Columns) -> None:
    """Add so many rows to the file of a running server."""
    with closing(_open(path, rows)) as connection:
        _multiply(connection, table, rows, changed)


def known_grants(path: Path, count: int) -> list[bytes]:
    """Keys of some of the signatures in the file."""
    with closing(sqlite3.connect(path)) as connection:
        return sample(lambda query, *key: connection.execute(query.format("?"), key).fetchone()[0], count)


def sample(ask: Callable[..., bytes], count: int) -> list[bytes]:
    """Keys of so many grants all over the ledger, by a query with `{}` for the key that it is bound to."""
    first, last = (int.from_bytes(ask(f"SELECT {edge}(grant_key) FROM grants")) for edge in ("min", "max"))
    points = [(first + (last - first) * number // count).to_bytes(32) for number in range(count)]
    return [ask("SELECT grant_key FROM grants WHERE grant_key >= {} ORDER BY grant_key LIMIT 1", key) for key in points]


def _spread(number: int, rows: int) -> bytes:
    return ((number - 1) * (_SPAN // rows) * 2).to_bytes(8, "big") + number.to_bytes(24, "big")


def _open(path: Path, rows: int) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=60)
    connection.create_function("key_of", 2, lambda at, number: dated(at, _spread(number, rows)), deterministic=True)
    connection.create_function("hex_of", 1, lambda number: _spread(number, rows)[:16].hex(), deterministic=True)
    return connection


def _multiply(connection: sqlite3.Connection, table: str, rows: int, changed: Columns) -> None:
    names = [column[1] for column in connection.execute(f"PRAGMA table_info({table})")]
    values = ", ".join(changed.get(name, name) for name in names)
    connection.execute(
        f"INSERT INTO {table} WITH RECURSIVE numbers(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < ?) "
        f"SELECT {values} FROM numbers, (SELECT * FROM {table} LIMIT 1)",
        (rows,),
    )
