"""Find the API key behind the HTTP Basic credentials of a call to the endpoints for servers."""

import hmac

from uponce.app.services import Services
from uponce.core.errors import BadCredentials, ScopeDenied, UnknownCloud
from uponce.core.signature import DUMMY_KEY
from uponce.core.values import ApiKey, KeyScope


async def authenticate(services: Services, cloud: str, api_key: str, secret: str) -> ApiKey:
    """Return the active key of this cloud with that secret. Raise BadCredentials, in one wording for every reason.

    An unknown key takes as long as a known one, so the time does not show which keys exist.
    """
    keys = await services.database.list_keys(cloud)
    if not keys:
        raise UnknownCloud(f"Invalid cloud_name {cloud}")
    found = [key for key in keys if key.api_key == api_key and key.revoked_at is None]
    secrets = found[0].secrets if found else DUMMY_KEY.secrets
    matches = [hmac.compare_digest(secret.encode(), known.encode()) for known in secrets]
    if found and any(matches):
        return found[0]
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
