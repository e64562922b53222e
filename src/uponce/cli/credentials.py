"""The key that a command signs with, and the server's address: from CLOUDINARY_URL or from a data folder."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from uponce.app.manage_keys import MAX_WINDOW, revoked
from uponce.app.services import Services
from uponce.cli.address import checked_url, find_base_url
from uponce.cli.options import warn
from uponce.cli.store import cloud_of, on_store
from uponce.config import cloudinary_url, load
from uponce.config.sources import read_sources
from uponce.core.errors import NotFound, SettingRefused
from uponce.core.values import Algorithm, ApiKey, KeyScope, KeyUses
from uponce.signing import account_of


@dataclass(frozen=True, slots=True)
class Credentials:
    key: ApiKey
    base: str


def find_credentials(data: str | None, api_key: str | None, url: str | None = None) -> Credentials:
    """Return the credentials in CLOUDINARY_URL, or those of a key in a data folder that --data or UPONCE_DATA names.

    That key is `api_key`, or the first key of the cloud of `cloud_of`: files of other clouds belong to other people.
    `url` replaces the base of the URLs. Raise SettingRefused if CLOUDINARY_URL counts and has another key than
    `api_key`.
    """
    account = cloudinary_url()
    if account is not None and data is None:
        if "data" not in read_sources():
            found = _found_in_environment(account, api_key)
            return found if url is None else replace(found, base=checked_url(url))
        warn("CLOUDINARY_URL does not count, because UPONCE_DATA names a data folder. Unset UPONCE_DATA to use it.")
    settings = load(data=data)

    async def look(services: Services) -> tuple[str, Sequence[ApiKey]]:
        cloud = await cloud_of(services, settings)
        return cloud, await services.database.list_keys(None if api_key else cloud)

    cloud, keys = on_store(settings, look)
    named = [key for key in keys if api_key in (None, key.api_key)]
    active = [key for key in named if key.revoked_at is None]
    if api_key and named and not active:
        raise revoked(named[0])
    if not active:
        wanted = f"API key {api_key}" if api_key else f"active API key of cloud {cloud}"
        raise NotFound(
            f"There is no {wanted} in {settings.data_dir}. `uponce keys create` makes one. For another cloud, set "
            "UPONCE_CLOUD, or name a key with --key."
        )
    key = next((key for key in active if key.uses is KeyUses.ONCE), active[0])
    return Credentials(key, find_base_url(settings, url))


def _found_in_environment(account: str, api_key: str | None) -> Credentials:
    try:
        found = credentials_of(account)
    except SettingRefused as error:
        raise SettingRefused(f"{error.message} Correct it, unset it, or name a data folder with --data.") from error
    if api_key not in (None, found.key.api_key):  # the error does not quote --key: it could contain a secret
        raise SettingRefused(
            f"--key names another API key than CLOUDINARY_URL, whose key is {found.key.api_key}. Unset CLOUDINARY_URL, "
            "or name a data folder with --data."
        )
    return found


def credentials_of(url: str) -> Credentials:
    """Return the parts of a CLOUDINARY_URL. Raise SettingRefused if a part is missing; the error shows no secret."""
    account = account_of(url)
    key = ApiKey(
        api_key=account.api_key,
        cloud=account.cloud,
        secrets=(account.secret,),
        uses=KeyUses.ONCE,
        scope=KeyScope.UPLOAD,
        window=MAX_WINDOW,  # the URL does not name it. The server judges valid_for
        algorithms=(Algorithm.SHA256,) if account.options.get("signature_algorithm") == "sha256" else tuple(Algorithm),
    )
    return Credentials(key, account.base)
