"""Who calls the signature endpoints: HTTP Basic credentials → API key."""

import hmac

from uponce.app.services import Services
from uponce.core.errors import BadCredentials, UnknownCloud
from uponce.core.signature import DUMMY_SECRET
from uponce.core.values import ApiKey


async def authenticate(services: Services, cloud: str, api_key: str, secret: str) -> ApiKey:
    """The active key of this cloud with that secret, or BadCredentials in one wording for every reason."""
    key = await services.database.find_key(api_key)
    good = key is not None and key.cloud == cloud and key.revoked_at is None
    secrets = key.secrets if key is not None and good else (DUMMY_SECRET,)
    matches = [hmac.compare_digest(secret.encode(), known.encode()) for known in secrets]
    if key is not None and good and any(matches):
        return key
    if not await services.database.list_keys(cloud):
        raise UnknownCloud(f"Invalid cloud_name {cloud}")
    raise BadCredentials("Send the API key and its secret of this cloud as HTTP Basic credentials.")
