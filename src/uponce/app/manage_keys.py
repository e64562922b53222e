"""Create, revoke and rotate API keys."""

import re

from uponce.app.services import Services
from uponce.core.errors import InvalidParameter, NotFound
from uponce.core.signature import Algorithm
from uponce.core.values import ApiKey, KeyScope, KeyUses

# 32 base-36 characters carry 165 bits; short secrets would let one key's signatures pose as another's.
SECRET_LENGTH = 32
DEFAULT_WINDOW = 3600

_CLOUD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")


async def create_key(
    services: Services,
    cloud: str,
    *,
    name: str = "",
    uses: KeyUses = KeyUses.ONCE,
    scope: KeyScope = KeyScope.UPLOAD,
    window: int = DEFAULT_WINDOW,
    allow_v1: bool = False,
    algorithms: tuple[Algorithm, ...] = tuple(Algorithm),
) -> ApiKey:
    """A new key; the first one of a cloud makes the cloud."""
    check_policy(cloud, window)
    key = ApiKey(
        api_key=str(10**14 + int(services.ids.hex(16), 16) % (9 * 10**14)),  # 15 digits, as Cloudinary's
        cloud=cloud,
        secrets=(services.ids.base36(SECRET_LENGTH),),
        uses=uses,
        scope=scope,
        window=window,
        name=name,
        allow_v1=allow_v1,
        algorithms=algorithms,
        created_at=int(services.clock.now()),
    )
    await services.database.add_key(key)
    return key


def check_policy(cloud: str, window: int) -> None:
    """Raise InvalidParameter if a key cannot have this cloud or this window."""
    if not _CLOUD.fullmatch(cloud):
        raise InvalidParameter(f"Cloud name {cloud!r} must be 1 to 63 letters, digits, '-' or '_'.")
    if not 1 <= window <= 7 * 86400:
        raise InvalidParameter(f"A window of {window} seconds is not allowed: 1 to {7 * 86400}.")


async def set_up(services: Services, cloud: str, window: int = DEFAULT_WINDOW) -> tuple[ApiKey, ...]:
    """On a first start, the two keys everyone needs: one to sign for browsers, one for the SDK on a server."""
    if await services.database.list_keys():
        return ()
    browser = await create_key(services, cloud, name="browser", window=window)
    server = await create_key(services, cloud, name="server", uses=KeyUses.UNLIMITED, scope=KeyScope.ALL, window=window)
    return browser, server


async def revoke_key(services: Services, api_key: str) -> ApiKey:
    key = await services.database.revoke_key(api_key)
    if key is None:
        raise NotFound(f"There is no API key {api_key}. `uponce keys list` shows them.")
    return key


async def rotate_key(services: Services, api_key: str, overlap: int | None = None) -> ApiKey:
    """A new secret. The old one counts for `overlap` seconds more, by default as long as its signatures live."""
    known = await services.database.find_key(api_key)
    seconds = known.window if known is not None and overlap is None else overlap or 0
    key = await services.database.rotate_key(api_key, services.ids.base36(SECRET_LENGTH), seconds)
    if key is None:
        raise NotFound(f"There is no API key {api_key}. `uponce keys list` shows them.")
    return key
