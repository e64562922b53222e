"""The catalog of assets, and the blobs that no asset may name any more."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from uponce.app.ports import Committed, Draft
from uponce.core.errors import BlobCondemned
from uponce.core.values import Asset, AssetName, DeliveryType, Digest, MediaFacts, ResourceType

_COLUMNS = (
    "cloud, resource_type, type, public_id, asset_id, version, version_id, created_at, blob_key, bytes, md5, sha256, "
    "facts, tags, context, original_filename"
)
_REPLACED = ("version", "version_id", "blob_key", "bytes", "md5", "sha256", "facts", "tags", "context")

# What the blob store can make a path of.
ADDRESSABLE = "(length(blob_key) = 32 AND blob_key NOT GLOB '*[^0-9a-f]*')"

# An overwritten asset keeps its asset_id and its created_at.
_PUT = (
    f"INSERT INTO assets ({_COLUMNS}) VALUES ({', '.join('?' * len(_COLUMNS.split(', ')))}) "
    "ON CONFLICT (cloud, resource_type, type, public_id) DO UPDATE SET "
    + ", ".join(f"{column} = excluded.{column}" for column in (*_REPLACED, "original_filename"))
)


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


def put(connection: sqlite3.Connection, draft: Draft, now: float) -> Committed:
    """Insert the asset, replace the one of that name, or leave that one alone, as the draft says.

    A clock that steps back does not turn versions back. BlobCondemned when the sweeper was first.
    """
    _refuse_condemned(connection, draft.blob_key)
    old = find(connection, draft.name)
    if old is not None and not draft.overwrite:
        return Committed(old, existing=True, unneeded_blob=draft.blob_key)
    asset = Asset(
        name=draft.name,
        asset_id=old.asset_id if old else draft.asset_id,
        version=max(int(now), old.version + 1) if old else int(now),
        version_id=draft.version_id,
        created_at=old.created_at if old else int(now),
        blob_key=draft.blob_key,
        digest=draft.digest,
        facts=draft.facts,
        tags=draft.tags,
        context=draft.context,
        original_filename=draft.original_filename,
    )
    connection.execute(_PUT, _row(asset))
    return Committed(asset, overwritten=old is not None, unneeded_blob=old.blob_key if old else None)


def condemn(connection: sqlite3.Connection, blob_keys: Sequence[str], now: float) -> Sequence[str]:
    """Those that no asset and no series names, also when they were condemned before; no commit can name them now."""
    doomed = [key for key in blob_keys if find_by_blob(connection, key) is None and not _in_series(connection, key)]
    connection.executemany(
        "INSERT INTO condemned (blob_key, at) VALUES (?, ?) ON CONFLICT DO NOTHING", [(key, int(now)) for key in doomed]
    )
    return doomed


def condemned(connection: sqlite3.Connection, blob_keys: Sequence[str]) -> Sequence[str]:
    return [key for key in blob_keys if _is_condemned(connection, key)]


def digests(connection: sqlite3.Connection, prefix: str) -> Mapping[str, Digest]:
    """Of the blobs whose keys begin so. Since keys are lower-case hex, `g` comes after all that may follow."""
    rows = connection.execute(
        f"SELECT blob_key, bytes, md5, sha256 FROM assets WHERE blob_key >= ? AND blob_key < ? AND {ADDRESSABLE}",
        (prefix, prefix + "g"),
    )
    return {key: Digest(size, md5, sha256) for key, size, md5, sha256 in rows}


def _in_series(connection: sqlite3.Connection, blob_key: str) -> bool:
    return connection.execute("SELECT 1 FROM series WHERE blob_key = ?", (blob_key,)).fetchone() is not None


def _is_condemned(connection: sqlite3.Connection, blob_key: str) -> bool:
    return connection.execute("SELECT 1 FROM condemned WHERE blob_key = ?", (blob_key,)).fetchone() is not None


def _refuse_condemned(connection: sqlite3.Connection, blob_key: str) -> None:
    if _is_condemned(connection, blob_key):
        raise BlobCondemned(
            "This upload took so long to complete that its bytes were swept away as abandoned. The signature is not "
            "spent: upload again."
        )


def _one(connection: sqlite3.Connection, where: str, *values: str) -> Asset | None:
    row = connection.execute(f"SELECT {_COLUMNS} FROM assets WHERE {where}", values).fetchone()
    return None if row is None else _asset(row)


def _row(asset: Asset) -> tuple[Any, ...]:
    name, digest = asset.name, asset.digest
    return (
        name.cloud,
        name.resource_type,
        name.type,
        name.public_id,
        asset.asset_id,
        asset.version,
        asset.version_id,
        asset.created_at,
        asset.blob_key,
        digest.size,
        digest.md5,
        digest.sha256,
        msgspec.json.encode(asset.facts).decode(),
        msgspec.json.encode(asset.tags).decode(),
        msgspec.json.encode(asset.context).decode(),
        asset.original_filename,
    )


def _asset(row: tuple[Any, ...]) -> Asset:
    cloud, resource_type, type_, public_id, asset_id, version, version_id, created_at, blob_key, *rest = row
    size, md5, sha256, facts, tags, context, original_filename = rest
    return Asset(
        name=AssetName(cloud, ResourceType(resource_type), DeliveryType(type_), public_id),
        asset_id=asset_id,
        version=version,
        version_id=version_id,
        created_at=created_at,
        blob_key=blob_key,
        digest=Digest(size, md5, sha256),
        facts=msgspec.json.decode(facts, type=MediaFacts),
        tags=msgspec.json.decode(tags, type=tuple[str, ...]),
        context=msgspec.json.decode(context, type=tuple[tuple[str, str], ...]),
        original_filename=original_filename,
    )
