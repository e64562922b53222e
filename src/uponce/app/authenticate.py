"""Find the API key behind the HTTP Basic credentials of a call to the endpoints for servers."""

import hmac

from uponce.app.services import Services
from uponce.core.errors import BadCredentials, ScopeDenied, UnknownCloud, shown
from uponce.core.signature import DUMMY_KEY, works_in
from uponce.core.values import ApiKey, KeyScope


async def authenticate(services: Services, cloud: str, api_key: str, secret: str) -> ApiKey:
    """Return the active key of this cloud with that secret. Raise BadCredentials, in one wording for every reason.

    A refusal takes the same steps for an unknown key as for a known one, so the time does not show which keys exist.
    uponce reads only this key: a cloud may have many, and uponce decrypts each key that it reads.
    """
    named = await services.database.find_key(api_key)
    key = named if works_in(named, cloud) else None
    matches = [hmac.compare_digest(secret.encode(), known.encode()) for known in (key or DUMMY_KEY).secrets]
    if key is not None and any(matches):
        return key
    if not await services.database.has_cloud(cloud):
        raise UnknownCloud(f"Invalid cloud_name {shown(cloud)}")
    raise BadCredentials("Send the API key and its secret of this cloud as HTTP Basic credentials.")


async def authenticate_for_all(services: Services, cloud: str, api_key: str, secret: str) -> ApiKey:
    """Return the same key as `authenticate`. Raise ScopeDenied unless it has scope all."""
    key = await authenticate(services, cloud, api_key, secret)
    if key.scope is not KeyScope.ALL:
        raise ScopeDenied(
            f"API key {key.api_key} has upload scope: it uploads, and never reads the catalog. Use a key of scope all "
            "(`uponce keys create --scope all`), on your server only."
        )
    return key
