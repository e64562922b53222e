"""Operations on the catalog of assets, and on the blobs that no asset may name any more."""

import re
from collections.abc import Mapping, Sequence

from uponce.adapters.database.commits import ask_asset, asset_of
from uponce.adapters.database.failures import bad_cursor
from uponce.adapters.database.steps import Rules, Runner, Steps, json_text, operation, runs
from uponce.adapters.files import KEY
from uponce.app.ports import CONTEXT_WINDOW, Page
from uponce.core.values import Asset, AssetName, Digest, ResourceType

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
    """Return a page of assets, newest first. A cursor is the id of the asset at which the next page begins."""
    window = {"cloud": cloud, "resource_type": resource_type, "newest": _id_of(cursor)}
    (ends,) = yield [("find_end_of_window", window | {"window": CONTEXT_WINDOW})]
    behind = ends[0]["id"] if ends else 0
    asked = window | {"behind": behind, "part": _context_part(key, value), "most": limit + 1}
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
        raise bad_cursor()
    return int(cursor)


@operation(timed=True)
def surplus(now: float, cloud: str, files: int, size: int, seconds: int) -> Steps[Sequence[Asset]]:
    kept = {"cloud": cloud, "most_files": files, "most_bytes": size, "before": int(now - seconds)}
    (rows,) = yield [("surplus_assets", kept | {"most": _SURPLUS})]
    return [asset_of(row) for row in rows]


@operation()
def unnamed(_: float, blob_keys: Sequence[str]) -> Steps[Sequence[str]]:
    named = yield [("find_named_blob", {"blob_key": key}) for key in blob_keys]
    return [key for key, rows in zip(blob_keys, named, strict=True) if not rows]


@operation(rules=Rules.OWN)
def condemn(now: float, blob_keys: Sequence[str], *, after_fence: float = 0) -> Steps[Sequence[str]]:
    # In the same transaction: a PostgreSQL that takes over is fenced before it condemns anything.
    (fences,) = yield [("find_fence", {})]
    if any(abs(now - row["moment"]) < after_fence for row in fences):
        return []
    doomed = yield from unnamed.steps(now, blob_keys)
    yield [("condemn", {"blob_key": key, "at": int(now)}) for key in doomed]
    return doomed


@operation()
def condemned(_: float, blob_keys: Sequence[str]) -> Steps[Sequence[str]]:
    found = yield [("find_condemned", {"blob_key": key}) for key in blob_keys]
    return [key for key, rows in zip(blob_keys, found, strict=True) if rows]


@operation(patient=True)
def digests(_: float, prefix: str) -> Steps[Mapping[str, Digest]]:
    """Return the digests of the blobs whose keys begin with `prefix`.

    Keys are lower-case hex, perhaps after a `p`, so `q` is greater than all of them. From another key no blob store can
    make a path: such blobs are left out, and the statement `broken_addressable` finds them.
    """
    (rows,) = yield [("list_digests", {"first": prefix, "behind": f"{prefix}q"})]
    known = (row for row in rows if KEY.fullmatch(row["blob_key"]))
    return {row["blob_key"]: Digest(row["bytes"], row["md5"], row["sha256"]) for row in known}


def _context_part(key: str, value: str | None) -> str:
    """Return the text that the column `context` has if an asset has this pair, or any pair of this key.

    Other contexts may have the text too, across the border of two strings.
    """
    return f"{json_text((key,))[:-1]}," if value is None else json_text((key, value))


class CatalogMethods(Runner):
    find_asset = runs(find)
    find_commit = runs(find_of_blob)
    confirm_commit = runs(find_of_blob, confirms=True)
    list_by_context = runs(of_context)
    list_surplus = runs(surplus)
    digests = runs(digests)
    unnamed = runs(unnamed)
    condemn = runs(condemn)
    condemned = runs(condemned)
