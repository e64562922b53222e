"""The catalog of assets, and the blobs that no asset may name any more."""

import json
import sqlite3
from collections.abc import Mapping, Sequence

from uponce.adapters.database.decisions import publication, refuse_condemned
from uponce.adapters.database.rows import ASSET_COLUMNS, REPLACED_COLUMNS, asset_of, asset_row
from uponce.app.ports import Committed, Draft
from uponce.core.values import Asset, AssetName, Digest

# What the blob store can make a path of.
ADDRESSABLE = "(length(blob_key) = 32 AND blob_key GLOB '[0-9a-fp]*' AND substr(blob_key, 2) NOT GLOB '*[^0-9a-f]*')"

_PUT = (
    f"INSERT INTO assets ({ASSET_COLUMNS}) VALUES ({', '.join('?' * len(ASSET_COLUMNS.split(', ')))}) "
    "ON CONFLICT (cloud, resource_type, type, public_id) DO UPDATE SET "
    + ", ".join(f"{column} = excluded.{column}" for column in REPLACED_COLUMNS)
)

_NAMED = """
SELECT blob_key FROM assets WHERE blob_key IN (SELECT value FROM json_each(:keys))
UNION ALL SELECT blob_key FROM series WHERE blob_key IN (SELECT value FROM json_each(:keys))
"""


def find(connection: sqlite3.Connection, name: AssetName) -> Asset | None:
    return _one(
        connection,
        "cloud = ? AND resource_type = ? AND type = ? AND public_id = ?",
        name.cloud,
        name.resource_type,
        name.type,
        name.public_id,
    )


def find_by_blob(connection: sqlite3.Connection, blob_key: str) -> Asset | None:
    return _one(connection, "blob_key = ?", blob_key)


def refuse_condemned_blob(connection: sqlite3.Connection, blob_key: str) -> None:
    """BlobCondemned when the sweeper was first. Ask it in the transaction that names the blob, before it writes."""
    if _is_condemned(connection, blob_key):
        raise refuse_condemned()


def put(connection: sqlite3.Connection, draft: Draft, now: float) -> Committed:
    """Insert the asset, replace the one of that name, or leave that one alone, as the draft says."""
    committed = publication(draft, find(connection, draft.name), now)
    if not committed.existing:
        connection.execute(_PUT, asset_row(committed.asset))
    return committed


def drop(connection: sqlite3.Connection, asset: Asset) -> None:
    connection.execute("DELETE FROM assets WHERE asset_id = ?", (asset.asset_id,))


def unnamed(connection: sqlite3.Connection, blob_keys: Sequence[str]) -> Sequence[str]:
    """Those that no asset and no series names."""
    named = {key for (key,) in connection.execute(_NAMED, {"keys": json.dumps(blob_keys)})}
    return [key for key in blob_keys if key not in named]


def condemn(connection: sqlite3.Connection, blob_keys: Sequence[str], now: float) -> Sequence[str]:
    """The unnamed ones, also when they were condemned before; no commit can name them now."""
    doomed = unnamed(connection, blob_keys)
    connection.executemany(
        "INSERT INTO condemned (blob_key, at) VALUES (?, ?) ON CONFLICT DO NOTHING", [(key, int(now)) for key in doomed]
    )
    return doomed


def condemned(connection: sqlite3.Connection, blob_keys: Sequence[str]) -> Sequence[str]:
    return [key for key in blob_keys if _is_condemned(connection, key)]


def digests(connection: sqlite3.Connection, prefix: str) -> Mapping[str, Digest]:
    """Of the blobs whose keys begin so. Keys are lower-case hex, perhaps behind a `p`: `q` comes after all of them."""
    rows = connection.execute(
        f"SELECT blob_key, bytes, md5, sha256 FROM assets WHERE blob_key >= ? AND blob_key < ? AND {ADDRESSABLE}",
        (prefix, prefix + "q"),
    )
    return {key: Digest(size, md5, sha256) for key, size, md5, sha256 in rows}


def _is_condemned(connection: sqlite3.Connection, blob_key: str) -> bool:
    return connection.execute("SELECT 1 FROM condemned WHERE blob_key = ?", (blob_key,)).fetchone() is not None


def _one(connection: sqlite3.Connection, where: str, *values: str) -> Asset | None:
    row = connection.execute(f"SELECT {ASSET_COLUMNS} FROM assets WHERE {where}", values).fetchone()
    return None if row is None else asset_of(row)
