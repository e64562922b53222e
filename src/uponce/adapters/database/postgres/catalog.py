"""The catalog of assets, and the blobs that no asset may name any more."""

from collections.abc import Collection, Mapping, Sequence

from uponce.adapters.database.postgres.connection import Connection, Cursor
from uponce.adapters.database.rows import ASSET_COLUMNS, REPLACED_COLUMNS, asset_of, asset_row
from uponce.core.values import Asset, AssetName, Digest

# What the blob store can make a path of.
ADDRESSABLE = "blob_key ~ '^[0-9a-fp][0-9a-f]{31}$'"

_SELECT = f"SELECT {ASSET_COLUMNS} FROM assets"
_PUT = (
    f"INSERT INTO assets ({ASSET_COLUMNS}) VALUES ({', '.join(['%s'] * len(ASSET_COLUMNS.split(', ')))}) "
    "ON CONFLICT (cloud, resource_type, type, public_id) DO UPDATE SET "
    + ", ".join(f"{column} = excluded.{column}" for column in REPLACED_COLUMNS)
)

_NAMED = """
SELECT blob_key FROM assets WHERE blob_key = ANY(%(keys)s::text[])
UNION ALL SELECT blob_key FROM series WHERE blob_key = ANY(%(keys)s::text[])
"""


async def ask(connection: Connection, name: AssetName) -> Cursor:
    """Its answer is read by `answer`: in a pipeline, several can be asked for before."""
    return await connection.execute(
        f"{_SELECT} WHERE cloud = %s AND resource_type = %s AND type = %s AND public_id = %s",
        (name.cloud, name.resource_type, name.type, name.public_id),
    )


async def answer(cursor: Cursor) -> Asset | None:
    row = await cursor.fetchone()
    return None if row is None else asset_of(row)


async def find(connection: Connection, name: AssetName) -> Asset | None:
    return await answer(await ask(connection, name))


async def find_by_blob(connection: Connection, blob_key: str) -> Asset | None:
    return await answer(await connection.execute(f"{_SELECT} WHERE blob_key = %s", (blob_key,)))


async def put(connection: Connection, asset: Asset) -> None:
    """New, or in place of the one of that name, which the caller has locked."""
    await connection.execute(_PUT, asset_row(asset))


async def drop(connection: Connection, asset: Asset) -> None:
    await connection.execute("DELETE FROM assets WHERE asset_id = %s", (asset.asset_id,))


async def unnamed(connection: Connection, blob_keys: Sequence[str]) -> Sequence[str]:
    """Those that no asset and no series names."""
    rows = await connection.execute(_NAMED, {"keys": list(blob_keys)})
    named = {key for (key,) in await rows.fetchall()}
    return [key for key in blob_keys if key not in named]


async def condemn(connection: Connection, blob_keys: Sequence[str], now: float) -> Sequence[str]:
    """The unnamed ones, also when they were condemned before; no commit can name them now.

    The caller holds the rules alone, so that no commit runs meanwhile.
    """
    doomed = await unnamed(connection, blob_keys)
    await connection.execute(
        "INSERT INTO condemned (blob_key, at) SELECT unnest(%s::text[]), %s ON CONFLICT DO NOTHING", (doomed, int(now))
    )
    return doomed


async def ask_condemned(connection: Connection, blob_keys: Sequence[str]) -> Cursor:
    return await connection.execute(
        "SELECT blob_key FROM condemned WHERE blob_key = ANY(%s::text[])", (list(blob_keys),)
    )


async def condemned_among(asked: Cursor) -> Collection[str]:
    return {key for (key,) in await asked.fetchall()}


async def condemned(connection: Connection, blob_keys: Sequence[str]) -> Sequence[str]:
    found = await condemned_among(await ask_condemned(connection, blob_keys))
    return [key for key in blob_keys if key in found]


async def digests(connection: Connection, prefix: str) -> Mapping[str, Digest]:
    """Of the blobs whose keys begin so. Keys are lower-case hex, perhaps behind a `p`: `q` comes after all of them."""
    rows = await connection.execute(
        f"SELECT blob_key, bytes, md5, sha256 FROM assets WHERE blob_key >= %s AND blob_key < %s AND {ADDRESSABLE}",
        (prefix, prefix + "q"),
    )
    return {key: Digest(size, md5, sha256) async for key, size, md5, sha256 in rows}
