"""Find an asset by its delivery URL or by its name, and open its bytes."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, suppress

from uponce.app.ports import OpenBlob
from uponce.app.services import Services
from uponce.app.threads import in_a_thread
from uponce.core import errors
from uponce.core.formats import canonical_format
from uponce.core.naming import DeliveryPath, check_public_id, spellings_of
from uponce.core.signature import verify_delivery
from uponce.core.values import Asset, AssetName, DeliveryType, ResourceType

_FEW_SECRETS = 50  # half a millisecond of hashes; any client may ask for a cloud with many keys


async def find(services: Services, path: DeliveryPath) -> Asset:
    """Return the asset. Raise NotFound. Raise DeliveryDenied if a signature is wrong, or missing where one is needed.

    The signature is checked before the look-up, so no client learns which private assets exist.
    """
    await _check_signature(services, path)
    stored_as: str | None = None
    for name, extension in path.candidates:
        asset = await _look_up(services, name)
        if asset is not None and _is_wanted(asset, extension):
            return asset
        if asset is not None:
            stored_as = asset.facts.format
    if path.transformation is not None:
        raise _untransformed(path.transformation)
    if stored_as is not None:
        raise errors.UnsupportedCall(
            "Conversion to another format is not supported by uponce yet. This asset is stored as "
            f"{stored_as}: request it with the extension .{stored_as}."
        )
    raise errors.NotFound(f"Resource not found - {path.candidates[-1][0].public_id[:255]}")


async def open_original(services: Services, asset: Asset, waiting: AbstractAsyncContextManager[None]) -> OpenBlob:
    """Open the bytes of the asset, inside `waiting` if that takes a thread or a request. Raise StorageUnavailable.

    An overwrite may have deleted the bytes since the look-up.
    """
    blob = services.blobs.open_now(asset.blob_key)
    if blob is None:
        async with waiting:
            blob = await services.blobs.open(asset.blob_key)
    if blob is None:
        raise errors.StorageUnavailable("The stored bytes cannot be read.", detail=f"no blob {asset.blob_key}")
    if blob.size != asset.digest.size:  # truncated: never send it as a whole answer with the asset's validators
        blob.close()
        raise errors.StorageUnavailable(
            "The stored bytes cannot be read.", detail=f"blob {asset.blob_key}: {blob.size}"
        )
    return blob


def find_now(services: Services, path: DeliveryPath) -> Asset | None:
    """Return the asset of a URL that needs no signature. Return None if that would need a wait."""
    glance = services.database.glance
    if glance is None or path.signature is not None or path.candidates[0][0].type is not DeliveryType.UPLOAD:
        return None
    for name, extension in path.candidates:
        asset = glance.find_asset(name)
        if asset is not None and _is_wanted(asset, extension):
            return asset
    return None


async def find_asset(
    services: Services, cloud: str, resource_type: ResourceType, type_: DeliveryType, public_id: str
) -> Asset:
    """Return the asset of this name, in any Unicode form of its public_id. Raise NotFound unless it exists."""
    try:
        name = AssetName(cloud, resource_type, type_, check_public_id(public_id))
    except errors.InvalidParameter:  # no asset can have this public_id
        raise errors.NotFound(f"Resource not found - {errors.shown(public_id)}") from None
    asset = await services.database.find_asset(name)
    if asset is None:
        raise errors.NotFound(f"Resource not found - {public_id}")
    return asset


async def _check_signature(services: Services, path: DeliveryPath) -> None:
    name = path.candidates[0][0]
    if path.signature is None and name.type is DeliveryType.UPLOAD:
        return
    keys = await services.database.list_keys(name.cloud)
    secrets = [secret for key in keys if key.revoked_at is None for secret in key.secrets]
    if path.signature is not None:
        if await _fits(path.source, path.signature, secrets):
            return
        # This signature is good for another text than `source`, so it never opens an asset of these names.
        if path.transformation and path.unversioned and await _fits(path.unversioned, path.signature, secrets):
            raise _untransformed(path.transformation)
    raise errors.DeliveryDenied("deny or ACL failure")


async def _fits(source: str, signature: str, secrets: Sequence[str]) -> bool:
    def fits() -> bool:
        return any(verify_delivery(each, signature, secrets) for each in spellings_of(source))

    return fits() if len(secrets) <= _FEW_SECRETS else await in_a_thread(fits)


def _untransformed(transformation: str) -> errors.UnsupportedCall:
    return errors.UnsupportedCall(
        "Transformations in delivery URLs are not supported by uponce yet. Remove "
        f"{errors.shown(transformation)} from the URL."
    )


def _is_wanted(asset: Asset, extension: str | None) -> bool:
    return extension is None or canonical_format(extension) == asset.facts.format


async def _look_up(services: Services, name: AssetName) -> Asset | None:
    if services.database.glance is not None:
        with suppress(errors.DatabaseUnavailable):
            return services.database.glance.find_asset(name)
    return await services.database.find_asset(name)
