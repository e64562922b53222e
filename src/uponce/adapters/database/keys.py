"""Operations on API keys: rows, rotation, revocation. Secrets are encrypted at rest, bound to their cloud and key."""

from collections.abc import Mapping, Sequence

from uponce.adapters.database.rows import SecretBox, key_of, key_params, secret_context, unreadable
from uponce.adapters.database.steps import Ask, Rules, Steps, operation
from uponce.core.errors import InvalidParameter
from uponce.core.values import ApiKey


@operation(timed=True)
def find(now: float, secrets: SecretBox, api_key: str) -> Steps[ApiKey | None]:
    return (yield from _find(now, secrets, api_key))


def _find(now: float, secrets: SecretBox, api_key: str) -> Steps[ApiKey | None]:
    (rows,) = yield [_ask(api_key)]
    return key_of(rows[0], secrets, now) if rows else None


@operation(timed=True)
def list_all(now: float, secrets: SecretBox, cloud: str | None) -> Steps[Sequence[ApiKey]]:
    """Of one cloud or of all, oldest first."""
    (rows,) = yield [("list_all_keys", {}) if cloud is None else ("list_keys", {"cloud": cloud})]
    return [key_of(row, secrets, now) for row in rows]


@operation(timed=True)
def list_unreadable(now: float, secrets: SecretBox) -> Steps[Mapping[str, str]]:
    (rows,) = yield [("list_all_keys", {})]
    return unreadable(rows, secrets, now)


@operation(rules=Rules.OWN)
def add(_: float, secrets: SecretBox, key: ApiKey) -> Steps[None]:
    """Store a key. The first key of a database also makes the secret key, inside this transaction: a database that has
    keys never gets a second one."""
    (present,) = yield [("find_any_key", {})]
    if not present:
        secrets.make_key()
    (added,) = yield [("add_key", key_params(key, secrets))]
    if not added:
        raise InvalidParameter(f"API key {key.api_key} exists already. Choose another one.")


@operation(rules=Rules.OWN)
def revoke(now: float, secrets: SecretBox, api_key: str) -> Steps[ApiKey | None]:
    """The first revocation's time stays."""
    yield [("revoke_key", {"api_key": api_key, "now": int(now)})]
    return (yield from _find(now, secrets, api_key))


@operation(rules=Rules.OWN)
def rotate(now: float, secrets: SecretBox, api_key: str, secret: str, overlap: int) -> Steps[ApiKey | None]:
    """Give a key a new secret. The present secret works for `overlap` more seconds, an older one ends now.

    With an overlap of 0 the present secret need not be readable.
    """
    (rows,) = yield [_ask(api_key)]
    if not rows:
        return None
    cipher = secrets.encrypt(secret, secret_context(rows[0]["cloud"], api_key))
    yield [("rotate_key", {"api_key": api_key, "until": int(now) + overlap, "secret": cipher})]
    return (yield from _find(now, secrets, api_key))


def _ask(api_key: str) -> Ask:
    return "find_key", {"api_key": api_key}
