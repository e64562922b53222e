"""Create and list clouds, and set the upstream to which a relay forwards their uploads."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from uponce.app.manage_keys import DEFAULT_WINDOW, PLAYGROUND, import_keys, two_keys
from uponce.app.services import Services
from uponce.core.errors import InvalidParameter, NotFound, SettingRefused
from uponce.core.values import ApiKey, GivenKey, KeyScope, KeyUses, Upstream

log = logging.getLogger("uponce")

_SAME = "same as upstream"  # the name of the key of `same_keys`


@dataclass(frozen=True, slots=True)
class Cloud:
    """A cloud, its keys and its upstream."""

    name: str
    keys: tuple[ApiKey, ...]
    upstream: Upstream | None


async def create_cloud(
    services: Services, name: str, upstream: Upstream | None, *, window: int = DEFAULT_WINDOW, same_keys: bool = False
) -> Sequence[ApiKey]:
    """Make a cloud with two keys, and return them: one to sign for browsers, one for the SDK on a server.

    With `same_keys`, the browser key is the key of the upstream. So a backend that signs with it needs no change. Raise
    InvalidParameter if the cloud exists.
    """
    if await services.database.has_cloud(name):
        raise InvalidParameter(f"Cloud {name} exists already. `uponce clouds relay {name} URL` changes its upstream.")
    browser, server = two_keys(services, name, window)
    if same_keys:
        browser = await _same_key(services, name, upstream, window)
        await services.database.add_key(server, new=True)
    else:
        await services.database.add_key(browser, server, new=True)
    # Last: a cloud whose upstream is not set stores uploads here, never in a place that the operator did not name.
    if upstream is not None:
        await services.database.set_upstream(name, upstream)
    return browser, server


async def _same_key(services: Services, cloud: str, upstream: Upstream | None, window: int) -> ApiKey:
    if upstream is None:
        raise InvalidParameter("Only a cloud with an upstream can have the same keys as its upstream. Add --relay.")
    key = ApiKey(upstream.api_key, cloud, (upstream.secret,), KeyUses.ONCE, KeyScope.UPLOAD, window, name=_SAME)
    _, conflicts = await import_keys(services, [GivenKey(key)])
    if conflicts:
        raise InvalidParameter(f"API key {key.api_key} exists already and differs: {conflicts[0].what}.")
    return key


async def set_upstream(services: Services, cloud: str, upstream: Upstream | None) -> int:
    """Forward uploads of a cloud from now on, or store them here again for None. Raise NotFound without such a cloud.

    No stored secret must be readable. Return how many uploads of all clouds are pending. Uploads that are pending in a
    former account wait until the account is set again.
    """
    if not await services.database.has_cloud(cloud):
        raise NotFound(f"Cloud {cloud} does not exist. `uponce clouds create {cloud}` makes it.")
    await services.database.set_upstream(cloud, upstream)
    return (await services.database.count_waiting()).pending


async def find_former_keys(services: Services, cloud: str, upstream: Upstream | None) -> Sequence[str]:
    """Return the API keys of the cloud that accept the secret of its account, if `upstream` has another secret.

    `create_cloud` makes such a key with `same_keys`. That one counts without the secret of `upstream`, also if the
    cloud has no account now. If a stored secret cannot be read, return no key.
    """
    try:
        former = (await services.database.list_upstreams(cloud)).get(cloud)
        keys = await services.database.list_keys(cloud)
    except SettingRefused:
        return []
    if upstream is None:
        return []
    replaced = None if former is None or former.secret == upstream.secret else former.secret
    return [
        key.api_key
        for key in keys
        if key.revoked_at is None
        and (replaced in key.secrets or (key.name == _SAME and upstream.secret not in key.secrets))
    ]


def still_accepted(api_key: str) -> str:
    """Return the warning about a key of `find_former_keys`."""
    return (
        f"API key {api_key} still accepts a former secret of the account, unless you have rotated it since. Let the "
        "back end sign with another key (`uponce keys import`, `uponce keys create`), then run "
        f"`uponce keys revoke {api_key}`."
    )


async def preset_upstream(services: Services, cloud: str, upstream: Upstream) -> None:
    """Set the upstream that the settings name, unless it is set. Raise SettingRefused if the cloud has no API key."""
    check_relayed(cloud, await services.database.list_keys())
    if (await services.database.list_upstreams(cloud)).get(cloud) != upstream:
        for api_key in await find_former_keys(services, cloud, upstream):
            log.warning("%s", still_accepted(api_key))
        await services.database.set_upstream(cloud, upstream)


def check_relayed(cloud: str, keys: Iterable[ApiKey]) -> None:
    """Raise SettingRefused unless one of the keys belongs to the cloud of UPONCE_RELAY."""
    clouds = {key.cloud for key in keys}
    if cloud not in clouds:
        raise SettingRefused(
            f"UPONCE_RELAY passes on the uploads of the cloud {cloud}, and cloud {cloud} has no API key. Set "
            f"UPONCE_CLOUD to one of: {', '.join(sorted(clouds - {PLAYGROUND}))}."
        )


async def list_clouds(services: Services) -> list[Cloud]:
    """Return all clouds, sorted by name, also those with an upstream and no key."""
    upstreams = await services.database.list_upstreams()
    keys: dict[str, list[ApiKey]] = {}
    for key in await services.database.list_keys():
        keys.setdefault(key.cloud, []).append(key)
    return [Cloud(name, tuple(keys.get(name, ())), upstreams.get(name)) for name in sorted({*keys, *upstreams})]
