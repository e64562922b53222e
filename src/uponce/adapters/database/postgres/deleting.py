"""Deletions of assets: spend, drop, note, in their caller's transaction, which shares the rules."""

from uponce.adapters.database.decisions import check_usable, deletion, refuse_spent
from uponce.adapters.database.postgres import audit, catalog, ledger, locks
from uponce.adapters.database.postgres.clock import Moment
from uponce.adapters.database.postgres.connection import Connection
from uponce.core.values import Asset, AssetName, Caller, Grant

_BY = "a call"


async def delete(connection: Connection, grant: Grant, name: AssetName, caller: Caller, moment: Moment) -> Asset | None:
    """As Database.delete. The name is locked first, so that no commit puts another asset in the found one's place."""
    await locks.hold(connection, [locks.of_name(name)])
    now = await moment.read(connection)
    ledger.check_key(grant, await ledger.watermarks(await ledger.ask_watermarks(connection, [grant])))
    asset = await catalog.find(connection, name)
    if asset is None:
        check_usable(await ledger.find(connection, grant.key), grant, by=_BY)
        return None
    spent = await ledger.ask_spend(connection, grant, now)
    if await spent.fetchone() is None:
        # A statement of its own: the one above may have waited for a rival that its own snapshot does not show.
        raise refuse_spent(await ledger.find(connection, grant.key), grant, by=_BY)
    await catalog.drop(connection, asset)
    await audit.write(connection, grant, deletion(asset, caller, now))
    return asset
