"""Who calls the signature endpoints: HTTP Basic credentials → API key."""

import hmac

from uponce.app.services import Services
from uponce.core.errors import BadCredentials, UnknownCloud
from uponce.core.signature import DUMMY_SECRET
from uponce.core.values import ApiKey


async def authenticate(services: Services, cloud: str, api_key: str, secret: str) -> ApiKey:
    """Return the active key of this cloud with that secret, or raise BadCredentials in one wording for every reason.

    The work is the same whether the cloud has such a key or not, so that time does not tell which keys exist.
    """
    keys = await services.database.list_keys(cloud)
    if not keys:
        raise UnknownCloud(f"Invalid cloud_name {cloud}")
    found = [key for key in keys if key.api_key == api_key and key.revoked_at is None]
    secrets = found[0].secrets if found else (DUMMY_SECRET,)
    matches = [hmac.compare_digest(secret.encode(), known.encode()) for known in secrets]
    if found and any(matches):
        return found[0]
    raise BadCredentials("Send the API key and its secret of this cloud as HTTP Basic credentials.")
