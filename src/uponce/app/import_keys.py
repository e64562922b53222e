"""Bring API keys with their secrets, so that a backend that signs with a pair already keeps it."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from uponce.app.manage_keys import check_policy
from uponce.app.services import Services
from uponce.core.errors import InvalidParameter
from uponce.core.values import ApiKey

_API_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")
# Cloudinary's secrets have 27 characters of this alphabet. 20 carry 120 bits if they were chosen by chance.
_SECRET = re.compile(r"[!-~]{20,128}")


@dataclass(frozen=True, slots=True)
class Conflict:
    """A key that exists in another form. `what` names the difference, never a secret."""

    api_key: str
    what: str


async def import_keys(services: Services, keys: Iterable[ApiKey]) -> tuple[list[ApiKey], list[Conflict]]:
    """Add the keys that do not exist, and return them, with the conflicts of those that do.

    A key that exists is never changed. InvalidParameter for a key that could not be safe; then no key is added.
    """
    known, added, conflicts = list(await services.database.list_keys()), [], []
    for key in keys:
        existing = next((other for other in known if other.api_key == key.api_key), None)
        if existing is not None:
            conflicts += [Conflict(key.api_key, what) for what in _differences(key, existing)[:1]]
            continue
        _check(key, known)
        known.append(key)
        added.append(replace(key, created_at=int(services.clock.now())))
    for key in [*added]:
        try:
            await services.database.add_key(key)
        except InvalidParameter:  # another server added it in this moment
            existing = await services.database.find_key(key.api_key)
            if existing is None:
                raise
            added.remove(key)
            conflicts += [Conflict(key.api_key, what) for what in _differences(key, existing)[:1]]
    return added, conflicts


def _differences(key: ApiKey, existing: ApiKey) -> list[str]:
    differs = {
        "state: it is revoked": existing.revoked_at is not None,
        "cloud": key.cloud != existing.cloud,
        "secret": key.secrets[0] not in existing.secrets,
        "policy (uses, scope or window)": (key.uses, key.scope, key.window)
        != (existing.uses, existing.scope, existing.window),
    }
    return [what for what, different in differs.items() if different]


def _check(key: ApiKey, others: Sequence[ApiKey]) -> None:
    """InvalidParameter if the key is malformed, or if its signatures could be valid for another key as well.

    A signature is a hash of the parameters followed by the secret. With a secret that ends like another key's, one
    signature could be a grant of both keys, and so be used twice.
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
        if any(secret.endswith(theirs) or theirs.endswith(secret) for theirs in other.secrets):
            raise InvalidParameter(
                f"API keys {key.api_key} and {other.api_key} have the same secret, or one secret ends with the other. "
                "One signature would then work for both keys. Give each key its own secret."
            )
