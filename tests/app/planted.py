"""Faults put into a store on purpose, by SQL and files alone; what returns a set returns the subjects to be named."""

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path

from tests.adapters.one_group import body
from tests.contract.stores import local_of
from tests.world import World
from uponce.adapters.store.local import LocalBlobs
from uponce.adapters.store.records import PAGE
from uponce.adapters.system import RandomIds
from uponce.core import signature

OLD = 1_000_000_000  # a file's last change: older than any grace time

Planter = Callable[[World, int], set[str]]


def key(label: str, number: int) -> str:
    """A blob key, spread over the shards."""
    return hashlib.md5(f"{label}/{number}".encode()).hexdigest()


def keys(label: str, count: int) -> Sequence[str]:
    return [key(label, number) for number in range(count)]


def write(world: World, statement: str, rows: Iterable[Sequence[object]]) -> None:
    with closing(sqlite3.connect(world.path)) as connection, connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.executemany(statement, rows)


def put_assets(world: World, blob_keys: Iterable[str], data: bytes = b"whole") -> set[str]:
    """Rows for blobs with these bytes; the assets' names."""
    blob_keys = list(blob_keys)
    md5, sha256 = hashlib.md5(data).hexdigest(), hashlib.sha256(data).hexdigest()
    write(
        world,
        "INSERT INTO assets (cloud, resource_type, type, public_id, asset_id, version, version_id, created_at, "
        "blob_key, bytes, md5, sha256, facts, tags, context) "
        "VALUES ('demo', 'raw', 'upload', ?1, ?1, 1, '', 1, ?1, ?2, ?3, ?4, '{\"kind\":\"raw\"}', '[]', '[]')",
        [(blob_key, len(data), md5, sha256) for blob_key in blob_keys],
    )
    return {f"demo/raw/upload/{blob_key}" for blob_key in blob_keys}


def put_blobs(world: World, blob_keys: Iterable[str], data: bytes = b"whole") -> set[str]:
    """Old files."""
    for blob_key in blob_keys:
        path = world.media / "blobs" / blob_key[:2] / blob_key
        path.write_bytes(data)
        os.utime(path, (OLD, OLD))
    return set(blob_keys)


def put_packed(world: World, *bodies: bytes) -> list[str]:
    """Blobs in a pack, which is over; the keys."""
    store = LocalBlobs(world.media, ids=RandomIds())
    with closing(store):
        return list(local_of(store).put_group([body(data) for data in bodies]))


def spoil_packed(world: World, blob_key: str, offset: int) -> None:
    """Flip a bit of the header, or behind it of the bytes."""
    with (world.media / "packs" / blob_key[1:11]).open("r+b") as pack:
        start = int(blob_key[11:16], 16) * PAGE + offset
        pack.seek(start)
        (byte,) = pack.read(1)
        pack.seek(start)
        pack.write(bytes([byte ^ 1]))


def put_condemned(world: World, blob_keys: Iterable[str]) -> None:
    write(world, "INSERT INTO condemned VALUES (?, 1)", [(blob_key,) for blob_key in blob_keys])


def put_grants(
    world: World,
    label: str,
    count: int,
    *,
    uses: int = 1,
    dated: bool = True,
    audited: int = 1,
    age: int = 0,
    api_key: str | None = None,
) -> set[str]:
    """Spent grants for one use each, with so many audit rows, that are `age` seconds old."""
    owner, at = api_key or world.browser.api_key, int(world.clock.time) - age
    subjects = [signature.dated(at, hashlib.sha256(f"{label}/{number}".encode()).digest()) for number in range(count)]
    write(
        world,
        "INSERT INTO grants (grant_key, cloud, api_key, timestamp, max_uses, uses, keep_until, spent_at) "
        "VALUES (?, 'demo', ?, ?, 1, ?, ?, ?)",
        [(subject, owner, at, uses, at + 7500, at if dated else None) for subject in subjects],
    )
    write(
        world,
        "INSERT INTO audit (at, grant_key, cloud, api_key, event, code, asset_id, public_id, address, request_id) "
        "VALUES (?, ?, 'demo', ?, 'spent', '', '', '', '', '')",
        [(at, subject, owner) for subject in subjects for _ in range(audited)],
    )
    return {subject.hex() for subject in subjects}


def plant_healthy(world: World, count: int) -> set[str]:
    put_blobs(world, keys("healthy", count))
    put_assets(world, keys("healthy", count))
    put_grants(world, "healthy", count)
    return set()


def plant_hollow(world: World, count: int) -> set[str]:
    return put_assets(world, keys("hollow", count))


def plant_size(world: World, count: int) -> set[str]:
    put_blobs(world, keys("size", count), b"torn")
    return put_assets(world, keys("size", count))


def plant_hash(world: World, count: int) -> set[str]:
    put_blobs(world, keys("hash", count), b"whorl")
    return put_assets(world, keys("hash", count))


def plant_blob_key(world: World, count: int) -> set[str]:
    """Of the wrong length, with a wrong letter, or one that would lead out of its folder."""
    spoilt = [lambda k: k[:31], lambda k: k[:31] + "g", lambda k: k.upper() + "A", lambda k: "../" + k[3:]]
    return put_assets(world, [spoilt[n % len(spoilt)](key("spoilt", n)) for n in range(count)])


def plant_condemned_asset(world: World, count: int) -> set[str]:
    put_blobs(world, keys("doomed", count))
    put_condemned(world, keys("doomed", count))
    return put_assets(world, keys("doomed", count))


def plant_orphan(world: World, count: int) -> set[str]:
    return put_blobs(world, keys("orphan", count))


def plant_condemned(world: World, count: int) -> set[str]:
    put_condemned(world, keys("condemned", count))
    return put_blobs(world, keys("condemned", count))


def plant_spooled(world: World, count: int) -> set[str]:
    for name in keys("spooled", count):
        path = world.media / "spool" / name
        path.write_bytes(b"half")
        os.utime(path, (OLD, OLD))
    return set(keys("spooled", count))


def plant_overused(world: World, count: int) -> set[str]:
    return put_grants(world, "overused", count, uses=2, audited=2)


def plant_undated(world: World, count: int) -> set[str]:
    return put_grants(world, "undated", count, dated=False)


def plant_unaudited(world: World, count: int) -> set[str]:
    """Half of them without any audit row, half with one too many."""
    none = put_grants(world, "unaudited", count // 2, audited=0)
    return none | put_grants(world, "audited twice", count - count // 2, audited=2)


def plant_unsettled(world: World, count: int) -> set[str]:
    """Half of them pending without an upload that was passed on, half the other way round."""
    pending = put_grants(world, "pending", count // 2, dated=False, audited=0)
    write(world, "UPDATE grants SET pending = 1 WHERE grant_key = ?", [(bytes.fromhex(each),) for each in pending])
    settled = put_grants(world, "settled", count - count // 2)
    write(
        world,
        "INSERT INTO relay_grants VALUES ('none', ?, '', 0, 1, 0)",
        [(bytes.fromhex(each),) for each in settled],
    )
    return pending | settled


def plant_overdue(world: World, count: int) -> set[str]:
    return put_grants(world, "overdue", count, age=7500 + 3601)


def plant_watermark(world: World, count: int) -> set[str]:
    owner = world.server.api_key
    write(world, "UPDATE api_keys SET watermark = ? WHERE api_key = ?", [(int(world.clock.time) - 60, owner)])
    put_grants(world, "after the watermark", 5, age=59, api_key=owner)
    return put_grants(world, "watermark", count, age=60, api_key=owner)


PLANTERS: dict[str, Planter] = {
    "hollow": plant_hollow,
    "size": plant_size,
    "hash": plant_hash,
    "blob_key": plant_blob_key,
    "condemned_asset": plant_condemned_asset,
    "orphan": plant_orphan,
    "condemned": plant_condemned,
    "spooled": plant_spooled,
    "overused": plant_overused,
    "undated": plant_undated,
    "unaudited": plant_unaudited,
    "unsettled": plant_unsettled,
    "overdue": plant_overdue,
    "watermark": plant_watermark,
}


def plant_missing_index_entries(world: World, count: int) -> None:
    """Audit rows that one index does not know: the index is hidden from the connection that writes them."""
    with closing(sqlite3.connect(world.path)) as connection, connection:
        (sql,) = connection.execute("SELECT sql FROM sqlite_schema WHERE name = 'audit_age'").fetchone()
        _set_index(connection, sql + " WHERE 0")
    put_grants(world, "unindexed", count)
    with closing(sqlite3.connect(world.path)) as connection, connection:
        _set_index(connection, sql)


def _set_index(connection: sqlite3.Connection, sql: str) -> None:
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'audit_age'", (sql,))


def rot(path: Path, table: str) -> None:
    """As a disk does it: no server notices while it does not read this page."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        ((page,),) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", [table])
        ((size,),) = connection.execute("PRAGMA page_size")
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(bytes(size))
