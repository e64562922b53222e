"""Operations on the catalog of assets, and on the blobs that no asset may name any more."""

import re
from collections.abc import Mapping, Sequence

from uponce.adapters.database.grants import ask_asset
from uponce.adapters.database.rows import asset_of, context_part
from uponce.adapters.database.steps import Rules, Steps, operation
from uponce.app.ports import CONTEXT_WINDOW, Page
from uponce.core.errors import InvalidParameter
from uponce.core.values import Asset, AssetName, Digest, ResourceType

# What the blob store can make a path of. The statement `broken_addressable` says the same.
_ADDRESSABLE = re.compile(r"[0-9a-fp][0-9a-f]{31}")
_SURPLUS = 100


@operation()
def find(_: float, name: AssetName) -> Steps[Asset | None]:
    (rows,) = yield [ask_asset(name)]
    return asset_of(rows[0]) if rows else None


@operation()
def find_of_blob(_: float, blob_key: str) -> Steps[Asset | None]:
    (rows,) = yield [("find_asset_of_blob", {"blob_key": blob_key})]
    return asset_of(rows[0]) if rows else None


@operation(first="unsorted")
def of_context(
    _: float, cloud: str, resource_type: ResourceType, key: str, value: str | None, *, limit: int, cursor: str | None
) -> Steps[Page[Asset]]:
    """Newest first. A cursor is the id of the asset at which the next page begins."""
    window = {"cloud": cloud, "resource_type": resource_type, "newest": _id_of(cursor)}
    (ends,) = yield [("find_end_of_window", window | {"window": CONTEXT_WINDOW})]
    behind = ends[0]["id"] if ends else 0
    asked = window | {"behind": behind, "part": context_part(key, value), "most": limit + 1}
    (rows,) = yield [("assets_of_context", asked)]
    found = tuple(asset for asset in map(asset_of, rows[:limit]) if _has(asset, key, value))
    following = rows[limit]["id"] if len(rows) > limit else behind
    return Page(found, str(following) if following else None)


def _has(asset: Asset, key: str, value: str | None) -> bool:
    context = dict(asset.context)
    return key in context and value in (None, context[key])


def _id_of(cursor: str | None) -> int:
    if cursor is None:
        return 2**63 - 1
    if not re.fullmatch("[1-9][0-9]{0,17}", cursor):
        raise InvalidParameter("The cursor cannot be read. Send next_cursor as it was received, or none to begin.")
    return int(cursor)


@operation(timed=True)
def surplus(now: float, cloud: str, files: int, size: int, seconds: int) -> Steps[Sequence[Asset]]:
    kept = {"cloud": cloud, "most_files": files, "most_bytes": size, "before": int(now - seconds)}
    (rows,) = yield [("surplus_assets", kept | {"most": _SURPLUS})]
    return [asset_of(row) for row in rows]


@operation()
def unnamed(_: float, blob_keys: Sequence[str]) -> Steps[Sequence[str]]:
    """Those that no asset and no series names."""
    return (yield from _unnamed(blob_keys))


def _unnamed(blob_keys: Sequence[str]) -> Steps[Sequence[str]]:
    named = yield [("find_named_blob", {"blob_key": key}) for key in blob_keys]
    return [key for key, rows in zip(blob_keys, named, strict=True) if not rows]


@operation(rules=Rules.OWN)
def condemn(now: float, blob_keys: Sequence[str]) -> Steps[Sequence[str]]:
    """The unnamed ones, also when they were condemned before; no commit can name them now."""
    doomed = yield from _unnamed(blob_keys)
    yield [("condemn", {"blob_key": key, "at": int(now)}) for key in doomed]
    return doomed


@operation()
def condemned(_: float, blob_keys: Sequence[str]) -> Steps[Sequence[str]]:
    found = yield [("find_condemned", {"blob_key": key}) for key in blob_keys]
    return [key for key, rows in zip(blob_keys, found, strict=True) if rows]


@operation(patient=True)
def digests(_: float, prefix: str) -> Steps[Mapping[str, Digest]]:
    """Of the blobs whose keys begin so. Keys are lower-case hex, perhaps behind a `p`: `q` comes after all of them."""
    (rows,) = yield [("list_digests", {"first": prefix, "behind": f"{prefix}q"})]
    return {
        row["blob_key"]: Digest(row["bytes"], row["md5"], row["sha256"])
        for row in rows
        if _ADDRESSABLE.fullmatch(row["blob_key"])
    }
