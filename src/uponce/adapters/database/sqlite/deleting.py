"""Deletions of assets: spend, drop, note: all of it, or by the caller's rollback none of it."""

import sqlite3

from uponce.adapters.database.decisions import check_usable, deletion
from uponce.adapters.database.sqlite import audit, catalog, ledger
from uponce.core.values import Asset, AssetName, Caller, Grant

_BY = "a call"


def delete(connection: sqlite3.Connection, grant: Grant, name: AssetName, caller: Caller, now: float) -> Asset | None:
    """As Database.delete."""
    ledger.check_key(connection, grant)
    asset = catalog.find(connection, name)
    if asset is None:
        check_usable(ledger.find(connection, grant.key), grant, by=_BY)
        return None
    ledger.spend(connection, grant, now, by=_BY)
    catalog.drop(connection, asset)
    audit.write(connection, grant, deletion(asset, caller, now))
    return asset
