"""Look up assets in the catalog: one by its name, or a page of them by their context."""

from uponce.app.ports import Page
from uponce.app.services import Services
from uponce.core.errors import InvalidParameter, NotFound
from uponce.core.naming import check_public_id
from uponce.core.readers import shown
from uponce.core.values import Asset, AssetName, DeliveryType, ResourceType


async def find_asset(
    services: Services, cloud: str, resource_type: ResourceType, type_: DeliveryType, public_id: str
) -> Asset:
    """Return the asset of this name, in any Unicode form of its public_id. Raise NotFound unless it exists."""
    try:
        name = AssetName(cloud, resource_type, type_, check_public_id(public_id))
    except InvalidParameter:  # no asset can have this public_id
        raise NotFound(f"Resource not found - {shown(public_id)}") from None
    asset = await services.database.find_asset(name)
    if asset is None:
        raise NotFound(f"Resource not found - {public_id}")
    return asset


async def find_assets_by_context(
    services: Services,
    cloud: str,
    resource_type: ResourceType,
    key: str,
    value: str | None,
    *,
    limit: int,
    cursor: str | None,
) -> Page[Asset]:
    """Return a page of the assets whose context has this key and, unless it is None, this value, newest first."""
    return await services.database.list_by_context(cloud, resource_type, key, value, limit=limit, cursor=cursor)
