"""The key that a command signs with, and the server's address: from CLOUDINARY_URL or from a data folder."""

from dataclasses import dataclass, replace

from uponce.cli.address import checked_url, find_base_url
from uponce.cli.store import on_store
from uponce.config import cloudinary_url, load
from uponce.core.errors import NotFound
from uponce.core.values import ApiKey, KeyScope, KeyUses
from uponce.signing import account_of


@dataclass(frozen=True, slots=True)
class Credentials:
    key: ApiKey
    base: str


def find_credentials(data: str | None, api_key: str | None, url: str | None = None) -> Credentials:
    """Return what CLOUDINARY_URL says, or, if a data folder is named, a key in that folder: `api_key`, or the first of
    UPONCE_CLOUD, since files of other clouds are other people's. `url` replaces the base of the URLs."""
    account = cloudinary_url()
    if account is not None and data is None:
        found = credentials_of(account)
        return found if url is None else replace(found, base=checked_url(url))
    settings = load(data=data)
    keys = on_store(settings, lambda services: services.database.list_keys(None if api_key else settings.cloud))
    active = [key for key in keys if key.revoked_at is None and api_key in (None, key.api_key)]
    if not active:
        wanted = f"API key {api_key}" if api_key else f"active API key of cloud {settings.cloud}"
        raise NotFound(
            f"There is no {wanted} in {settings.data_dir}. `uponce keys create` makes one. For another cloud, set "
            "UPONCE_CLOUD, or name a key with --key."
        )
    key = next((key for key in active if key.uses is KeyUses.ONCE), active[0])
    return Credentials(key, find_base_url(settings, url))


def credentials_of(url: str) -> Credentials:
    """Return what a CLOUDINARY_URL says. SettingRefused if it lacks a part; the error shows no secret."""
    account = account_of(url)
    key = ApiKey(
        api_key=account.api_key,
        cloud=account.cloud,
        secrets=(account.secret,),
        uses=KeyUses.ONCE,
        scope=KeyScope.UPLOAD,
        window=0,
    )
    return Credentials(key, account.base)
