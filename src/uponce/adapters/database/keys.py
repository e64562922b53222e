"""Operations on API keys: rows, rotation, revocation. Secrets are encrypted at rest, bound to their cloud and key."""

from collections.abc import Mapping, Sequence

from uponce.adapters.database.rows import (
    SecretBox,
    key_of,
    key_params,
    secret_context,
    upstream_of,
    upstream_params,
)
from uponce.adapters.database.steps import Ask, Row, Rules, Steps, operation
from uponce.core.errors import InvalidParameter, SettingRefused
from uponce.core.upstream import parse_upstream
from uponce.core.values import ApiKey, Upstream


@operation(timed=True)
def find(now: float, secrets: SecretBox, api_key: str) -> Steps[ApiKey | None]:
    return (yield from _find(now, secrets, api_key))


def _find(now: float, secrets: SecretBox, api_key: str) -> Steps[ApiKey | None]:
    (rows,) = yield [_ask(api_key)]
    return key_of(rows[0], secrets, now) if rows else None


@operation(timed=True)
def list_all(now: float, secrets: SecretBox, cloud: str | None = None) -> Steps[Sequence[ApiKey]]:
    """Of one cloud or of all, oldest first."""
    (rows,) = yield [("list_all_keys", {}) if cloud is None else ("list_keys", {"cloud": cloud})]
    return [key_of(row, secrets, now) for row in rows]


@operation(timed=True)
def list_unreadable(now: float, secrets: SecretBox) -> Steps[Mapping[str, str]]:
    """Return the API keys whose secret, or whose upstream's, cannot be decrypted, each with the reason."""
    (rows,) = yield [("list_all_keys", {})]
    reasons: dict[str, str] = {}
    for row in rows:
        try:
            key_of(row, secrets, now)
        except SettingRefused as error:
            reasons[row["api_key"]] = error.message
    return reasons


@operation(rules=Rules.OWN)
def add(_: float, secrets: SecretBox, *keys: ApiKey) -> Steps[None]:
    """Store all keys or none. The first secret of a database also makes the secret key, inside this transaction: a
    database that has secrets never gets a second one. SettingRefused if the key reads none of the present secrets."""
    yield from _make_key_once(secrets)
    found = yield [("add_key", key_params(key, secrets)) for key in keys]
    for key, added in zip(keys, found, strict=True):
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


@operation(rules=Rules.OWN)
def set_upstream(now: float, secrets: SecretBox, cloud: str, upstream: Upstream | None) -> Steps[None]:
    """Store where the uploads of a cloud are passed on; None forgets it. The present secret need not be readable.

    SettingRefused as for `add`, unless the new secret is empty.

    Every pending upload of the cloud is looked up again at once, also if its look-ups had ended without a result.
    """
    if upstream is None:
        yield [("drop_upstream", {"cloud": cloud})]
        return
    if upstream.secret:
        yield from _make_key_once(secrets)
    yield [
        ("put_upstream", upstream_params(cloud, upstream, secrets)),
        ("revive_relays", {"cloud": cloud, "now": int(now)}),
    ]


@operation()
def list_upstreams(_: float, secrets: SecretBox) -> Steps[Mapping[str, Upstream]]:
    (rows,) = yield [("list_upstreams", {})]
    return {row["cloud"]: upstream_of(row, secrets) for row in rows}


@operation()
def list_lost_upstreams(_: float, secrets: SecretBox) -> Steps[Mapping[str, Upstream]]:
    (rows,) = yield [("list_upstreams", {})]
    return {row["cloud"]: parse_upstream(row["url"], "") for row in rows if _is_lost(row, secrets)}


def _is_lost(row: Row, secrets: SecretBox) -> bool:
    try:
        upstream_of(row, secrets)
    except SettingRefused:
        return True
    return False


@operation()
def has_cloud(_: float, cloud: str) -> Steps[bool]:
    (rows,) = yield [("find_cloud", {"cloud": cloud})]
    return bool(rows)


def _make_key_once(secrets: SecretBox) -> Steps[None]:
    """Raise SettingRefused unless the key reads a present secret: with a second key, no server could read them all."""
    (present,) = yield [("list_secrets", {})]
    refusal = None
    for row in present:
        try:
            secrets.decrypt(row["secret"], secret_context(row["cloud"], row["api_key"]))
            return
        except SettingRefused as error:
            refusal = error
    if refusal is not None:
        raise refusal
    secrets.make_key()


def _ask(api_key: str) -> Ask:
    return "find_key", {"api_key": api_key}
