"""A deletion that is broken on purpose: the bytes go before the row, so a crash between the two leaves a row alone."""

from uponce.app.authorise import Verified
from uponce.app.services import Services
from uponce.core.values import AssetName, Caller


async def bytes_first(services: Services, verified: Verified, name: AssetName, caller: Caller) -> bool:
    """In place of `uponce.app.signed_calls._delete`."""
    asset = await services.database.find_asset(name)
    if asset is not None:
        await services.blobs.delete(asset.blob_key)
    return await services.database.delete(verified.grant, name, caller) is not None
