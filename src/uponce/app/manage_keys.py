"""Create, import, revoke, rotate and renew API keys."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from uponce.app.check import check_frozen
from uponce.app.services import Services
from uponce.core.errors import InvalidParameter, NotFound, SettingRefused
from uponce.core.signature import utc
from uponce.core.upstream import url_of
from uponce.core.values import Algorithm, ApiKey, GivenKey, KeyScope, KeyUses, Upstream

# 32 base-36 characters carry 165 bits. With short secrets, one key's signatures could pass for another key's.
SECRET_LENGTH = 32
DEFAULT_WINDOW = 3600
PLAYGROUND = "playground"  # the cloud of the playground, and the name of its key
_PLAYGROUND_WINDOW = 600
MAX_WINDOW = 7 * 86400

Show = Callable[[ApiKey], None]

_CLOUD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_NO_CLOUDS = {  # the files of such a cloud would have no addresses, or would not stay
    "v1_1": "/v1_1/ is for uploads",
    "tus": "/tus/ is for uploads",
    PLAYGROUND: "the playground deletes the files of this cloud",
}


def new_key(
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
    """Return a key to add. The first key of a cloud makes the cloud. Raise InvalidParameter as `check_policy` does."""
    check_policy(cloud, window)
    return ApiKey(
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


def two_keys(services: Services, cloud: str, window: int) -> tuple[ApiKey, ApiKey]:
    """Return two keys to add: one to sign for browsers, one for the SDK on a server."""
    browser = new_key(services, cloud, name="browser", window=window)
    return browser, new_key(services, cloud, name="server", uses=KeyUses.UNLIMITED, scope=KeyScope.ALL, window=window)


def check_policy(cloud: str, window: int) -> None:
    """Raise InvalidParameter if a key cannot have this cloud or this window."""
    if not _CLOUD.fullmatch(cloud):
        raise InvalidParameter(
            f"Cloud name {cloud!r} is not valid. Use 1 to 63 letters, digits, '-' or '_', and begin with a letter or "
            "a digit."
        )
    if cloud in _NO_CLOUDS:
        raise InvalidParameter(f"Cloud name {cloud!r} is taken: {_NO_CLOUDS[cloud]}. Choose another name.")
    if not 1 <= window <= MAX_WINDOW:
        raise InvalidParameter(f"A window of {window} seconds is not allowed. Choose 1 to {MAX_WINDOW} seconds.")


async def set_up(services: Services, cloud: str, window: int = DEFAULT_WINDOW) -> tuple[ApiKey, ...]:
    """Make two keys on a first start: to sign for browsers, and for a server's SDK. Return none later."""
    if not all(map(is_of_playground, await services.database.list_keys())):
        return ()
    keys = two_keys(services, cloud, window)
    await services.database.add_key(*keys, new=True)  # at once: after a crash in between, the second would never come
    return keys


async def playground_key(services: Services) -> ApiKey:
    """Return the playground's key, which the first call makes. Raise as `playground_keys` does."""
    for key in await playground_keys(services):
        if key.revoked_at is None:
            return key
    # `check_policy` refuses this cloud to every other key.
    key = replace(new_key(services, "any", name=PLAYGROUND, window=_PLAYGROUND_WINDOW), cloud=PLAYGROUND)
    await services.database.add_key(key, new=True)
    return key


async def playground_keys(services: Services) -> Sequence[ApiKey]:
    """Return the playground's keys. Its cloud has no other keys and no other media.

    Raise SettingRefused if it has: the playground would delete those media.
    """
    keys = await services.database.list_keys(PLAYGROUND)
    if others := [key.api_key for key in keys if not is_of_playground(key)]:
        raise SettingRefused(
            f"The cloud {PLAYGROUND} has API keys that are not the playground's: {', '.join(others)}. A server with "
            "the playground would delete their files. Start it without the playground."
        )
    return keys


def is_of_playground(key: ApiKey) -> bool:
    return key.cloud == key.name == PLAYGROUND


async def revoke_key(services: Services, api_key: str) -> ApiKey:
    """Refuse a key and its signatures from now on. Raise NotFound if it does not exist."""
    key = await services.database.revoke_key(api_key)
    if key is None:
        raise _no_key(api_key)
    return key


async def rotate_key(
    services: Services,
    api_key: str,
    overlap: int | None = None,
    *,
    keeps_older: bool = False,
    show: Show = lambda key: None,
) -> ApiKey:
    """Give a key a new secret, and return the key. The old secret works for `overlap` more seconds.

    By default that is as long as its signatures live. `show` gets the key with the new secret first: if it fails, the
    old secret stays, since no command shows a secret again. An overlap of 0 also ends the key's series. Raise NotFound
    if the key does not exist. Raise InvalidParameter if it is revoked: a new secret would not work either. An older
    secret ends at once. If the caller `keeps_older`, raise SettingRefused while one works, except with an overlap of 0.
    Raise it too, and change nothing, if another rotation of the key comes first.
    """
    known = await services.database.find_key(api_key)
    if known is None:
        raise _no_key(api_key)
    if known.revoked_at is not None:
        raise revoked(known)
    if keeps_older and overlap != 0 and known.old_secret_until is not None:
        raise SettingRefused(
            f"The secret before the last rotation of API key {api_key} still works. This rotation would end it at "
            "once: uponce would refuse its unused signatures. Nothing was changed. Rotate the key after that secret "
            f"has ended, at {utc(known.old_secret_until)}. If no back end uses it, add --yes. If a secret leaked, use "
            "--overlap 0."
        )
    await check_frozen(services)  # or `show` would print a secret that never works
    secret = services.ids.base36(SECRET_LENGTH)
    show(replace(known, secrets=(secret, *known.secrets[:1])))
    key = await _replace_secret(
        services, api_key, secret, known.window if overlap is None else overlap, known.secrets[0]
    )
    if key.secrets[0] != secret:
        raise SettingRefused(
            f"Another rotation of API key {api_key} came first. Nothing was changed, and the new secret that was shown "
            "does not work."
        )
    return key


async def renew_keys(
    services: Services, make_secret_key: Callable[[], None], *, confirmed: bool, show: Show
) -> Mapping[str, Upstream]:
    """Give each key whose secret cannot be read a new one, and drop the old one at once.

    `show` gets each of these keys at once, so a later failure hides none. Return by cloud each upstream whose secret
    was lost: it refuses uploads until it is set again. `make_secret_key` makes the key that encrypts secrets, unless it
    exists. Raise SettingRefused, and change nothing, unless the operator has `confirmed` that every copy of the old
    secret key is lost.
    """
    database = services.database
    unreadable, lost = await database.unreadable_keys(), await database.lost_upstreams()
    if (unreadable or lost) and not confirmed:
        names, reason = ", ".join([*unreadable, *map(url_of, lost.values())]), next(iter(unreadable.values()), "")
        raise SettingRefused(
            f"The secrets of the API keys {names} cannot be read. {reason} If every copy is lost, add --yes: each "
            "of these keys gets a new secret, and its backends need the new CLOUDINARY_URL. A cloud that passes "
            "uploads on refuses them until you set its account again."
        )
    if unreadable or lost:
        await check_frozen(services)
        make_secret_key()
    for cloud, upstream in lost.items():  # first: a key is read together with the upstream of its cloud
        await database.set_upstream(cloud, upstream)
    for api_key in await database.unreadable_keys():
        show(await _replace_secret(services, api_key, services.ids.base36(SECRET_LENGTH), 0))
    return lost


async def _replace_secret(
    services: Services, api_key: str, secret: str, overlap: int, present: str | None = None
) -> ApiKey:
    key = await services.database.rotate_key(api_key, secret, overlap, present)
    if key is None:
        raise _no_key(api_key)
    return key


def revoked(key: ApiKey) -> InvalidParameter:
    """Return the refusal of a command that needs a key which is not revoked."""
    return InvalidParameter(
        f"API key {key.api_key} was revoked at {utc(key.revoked_at or 0)}, and a revoked key stays refused. Make a new "
        "key: `uponce keys create`."
    )


def _no_key(api_key: str) -> NotFound:
    return NotFound(f"API key {api_key} does not exist. `uponce keys list` shows all keys.")


_API_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")
# Cloudinary's secrets have 27 characters of this alphabet. 20 carry 120 bits if they were chosen by chance.
_SECRET = re.compile(r"[!-~]{20,128}")


@dataclass(frozen=True, slots=True)
class Conflict:
    """A key that the database has in another form. `what` names the difference, never a secret."""

    api_key: str
    what: str
    cure: str = "The database counts. Correct UPONCE_KEYS, or remove the key there."

    @property
    def of_settings(self) -> str:
        """Return the warning for the operator if the key is from the settings."""
        return f"API key {self.api_key} differs between settings and database: {self.what}. {self.cure}"


async def import_keys(services: Services, keys: Iterable[GivenKey]) -> tuple[list[ApiKey], list[Conflict]]:
    """Add the keys that do not exist. Return them, and a conflict for each key that exists in another form.

    A key that exists is never changed. Raise InvalidParameter for a key that could not be safe; then no key is added.
    """
    new, conflicts = await find_new_keys(services, keys)
    added = []
    for given in new:
        try:
            await services.database.add_key(given.key)
        except InvalidParameter:  # another server added it since the look-up
            existing = await services.database.find_key(given.key.api_key)
            if existing is None:
                raise
            conflicts += _conflicts(given, existing)
        else:
            added.append(given.key)
    return added, conflicts


async def find_new_keys(services: Services, keys: Iterable[GivenKey]) -> tuple[list[GivenKey], list[Conflict]]:
    """Return, or raise, what `import_keys` would. Add no key."""
    known, added, conflicts = list(await services.database.list_keys()), [], []
    past = await services.database.past_secrets()
    for given in keys:
        key = given.key
        existing = next((other for other in known if other.api_key == key.api_key), None)
        if existing is not None:
            conflicts += _conflicts(given, existing)
            continue
        _check(key, known, past)
        known.append(key)
        added.append(replace(given, key=replace(key, created_at=int(services.clock.now()))))
    return added, conflicts


def _conflicts(given: GivenKey, existing: ApiKey) -> list[Conflict]:
    """Return the first difference, if there is one."""
    key = given.key
    window = key.window if given.names_window else existing.window
    differs = {
        "state: it is revoked": existing.revoked_at is not None,
        "cloud": key.cloud != existing.cloud,
        "secret": key.secrets[0] not in existing.secrets,
        "policy (uses, scope or window)": (key.uses, key.scope, window)
        != (existing.uses, existing.scope, existing.window),
        "signature_algorithm": set(key.algorithms) != set(existing.algorithms),
    }
    found = [Conflict(key.api_key, what) for what, different in differs.items() if different]
    if not found and key.window != existing.window:
        cure = (
            f"This key keeps its window of {existing.window} seconds: UPONCE_WINDOW counts for new keys. Add "
            f"window={existing.window} to the key in UPONCE_KEYS."
        )
        found = [Conflict(key.api_key, "window", cure)]
    return found[:1]


def _check(key: ApiKey, others: Sequence[ApiKey], past: Mapping[str, str]) -> None:
    """Raise InvalidParameter if the key is malformed, or if its signatures could be valid for another key as well.

    A signature is a hash of the parameters followed by the secret. With a secret that ends like another key's, one
    signature could be a grant of both keys, and so be used twice. That holds for `past` secrets too: signatures made
    with them may have been used.
    """
    if not _API_KEY.fullmatch(key.api_key):
        raise InvalidParameter(f"API key {key.api_key[:80]!r} is not valid. Use 1 to 64 letters, digits, '-' or '_'.")
    check_policy(key.cloud, key.window)
    secret = key.secrets[0]
    if not _SECRET.fullmatch(secret):
        raise InvalidParameter(
            f"The secret of API key {key.api_key} has {len(secret)} characters. Use 20 to 128 characters of visible "
            "ASCII. `openssl rand -hex 20` makes a good secret."
        )
    for other in others:
        of_other = (*other.secrets, past.get(other.api_key, other.secrets[0]))
        if any(secret.endswith(theirs) or theirs.endswith(secret) for theirs in of_other):
            raise InvalidParameter(
                f"API keys {key.api_key} and {other.api_key} have the same secret, or one secret ends with the other. "
                "The secret before a rotation counts too. One signature would then work for both keys. Give each key "
                "its own secret."
            )
