"""Operations on API keys: rows, rotation, revocation. Secrets are encrypted at rest, bound to their cloud and key."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import msgspec

from uponce.adapters.database.steps import (
    Method,
    Operation,
    Params,
    Row,
    Rules,
    Runner,
    Steps,
    json_text,
    operation,
    params_of,
    runs,
)
from uponce.core.errors import InvalidParameter, SettingRefused
from uponce.core.upstream import parse_upstream, url_of
from uponce.core.values import Algorithm, ApiKey, KeyScope, KeyUses, Upstream

T = TypeVar("T")
P = ParamSpec("P")

_ALGORITHMS = msgspec.json.Decoder(tuple[Algorithm, ...])


class SecretBox(Protocol):
    """Encrypts API secrets. A text that was encrypted in one context does not decrypt in another."""

    def make_key(self) -> None:
        """Make the secret key unless it exists."""

    def encrypt(self, plain: str, context: str) -> bytes: ...

    def decrypt(self, cipher: bytes, context: str) -> str: ...


@operation(timed=True)
def find(now: float, secrets: SecretBox, api_key: str) -> Steps[ApiKey | None]:
    (rows,) = yield [("find_key", {"api_key": api_key})]
    return _key_of(rows[0], secrets, now) if rows else None


@operation(timed=True)
def list_all(now: float, secrets: SecretBox, cloud: str | None = None) -> Steps[Sequence[ApiKey]]:
    (rows,) = yield [("list_all_keys", {}) if cloud is None else ("list_keys", {"cloud": cloud})]
    return [_key_of(row, secrets, now) for row in rows]


@operation(timed=True)
def list_unreadable(now: float, secrets: SecretBox) -> Steps[Mapping[str, str]]:
    (rows,) = yield [("list_all_keys", {})]
    reasons: dict[str, str] = {}
    for row in rows:
        try:
            _key_of(row, secrets, now)
        except SettingRefused as error:
            reasons[row["api_key"]] = error.message
    return reasons


@operation()
def list_past(_: float, secrets: SecretBox) -> Steps[Mapping[str, str]]:
    (rows,) = yield [("list_all_keys", {})]
    found: dict[str, str] = {}
    for row in rows:
        if row["previous_secret"] is not None:
            with suppress(SettingRefused):
                context = _secret_context(row["cloud"], row["api_key"])
                found[row["api_key"]] = secrets.decrypt(row["previous_secret"], context)
    return found


@operation(rules=Rules.OWN)
def add(_: float, secrets: SecretBox, *keys: ApiKey, new: bool = False) -> Steps[None]:
    # Inside of this transaction: a database that has secrets never gets a second secret key.
    yield from _make_key_once(secrets)
    (fences,) = yield [("find_fence", {})]
    if fences and not new:
        keys = tuple(replace(key, watermark=fences[0]["mark"]) for key in keys)
    found = yield [("add_key", _key_params(key, secrets)) for key in keys]
    for key, added in zip(keys, found, strict=True):
        if not added:
            raise InvalidParameter(f"API key {key.api_key} exists already. Choose another one.")


@operation(rules=Rules.OWN, patient=True)  # the key may have many series
def revoke(now: float, secrets: SecretBox, api_key: str) -> Steps[ApiKey | None]:
    """End the key's series too: requests that continue an upload may have no signature."""
    yield [("revoke_key", {"api_key": api_key, "now": int(now)}), ("end_series_of_key", {"api_key": api_key})]
    return (yield from find.steps(now, secrets, api_key))


def rotate(
    secrets: SecretBox, api_key: str, secret: str, overlap: int, present: str | None = None
) -> Operation[ApiKey | None]:
    make = _rotate if overlap else _rotate_at_once
    return make(secrets, api_key, secret, overlap, present)


def _rotation(
    now: float, secrets: SecretBox, api_key: str, secret: str, overlap: int, present: str | None
) -> Steps[ApiKey | None]:
    """End the key's series too if there is no overlap: requests that continue an upload may have no signature."""
    (rows,) = yield [("find_key", {"api_key": api_key})]
    if not rows:
        return None
    context = _secret_context(rows[0]["cloud"], api_key)
    if present is not None and secrets.decrypt(rows[0]["secret"], context) != present:
        return _key_of(rows[0], secrets, now)
    cipher = secrets.encrypt(secret, context)
    until = int(now) + overlap if overlap else 0  # a clock that steps back revives no secret that ended at once
    yield [("rotate_key", {"api_key": api_key, "until": until, "secret": cipher})]
    if not overlap:
        yield [("end_series_of_key", {"api_key": api_key})]
    return (yield from find.steps(now, secrets, api_key))


_rotate = operation(rules=Rules.OWN)(_rotation)
_rotate_at_once = operation(rules=Rules.OWN, patient=True)(_rotation)  # the key may have many series


@operation(rules=Rules.OWN)
def set_upstream(now: float, secrets: SecretBox, cloud: str, upstream: Upstream | None) -> Steps[None]:
    """Look up every pending upload of the cloud at once, also if its look-ups had ended without a result.

    The present secret need not be readable. Raise SettingRefused as `add` does, unless the new secret is empty.
    """
    if upstream is None:
        yield [("drop_upstream", {"cloud": cloud})]
        return
    if upstream.secret:
        yield from _make_key_once(secrets)
    yield [
        ("put_upstream", _upstream_params(cloud, upstream, secrets)),
        ("revive_relays", {"cloud": cloud, "now": int(now)}),
    ]


@operation()
def list_upstreams(_: float, secrets: SecretBox, cloud: str | None = None) -> Steps[Mapping[str, Upstream]]:
    (rows,) = yield [("list_upstreams", {}) if cloud is None else ("find_upstream", {"cloud": cloud})]
    return {row["cloud"]: _upstream_of(row, secrets) for row in rows}


@operation()
def list_lost_upstreams(_: float, secrets: SecretBox) -> Steps[Mapping[str, Upstream]]:
    (rows,) = yield [("list_upstreams", {})]
    return {row["cloud"]: parse_upstream(row["url"], "") for row in rows if _is_lost(row, secrets)}


def _is_lost(row: Row, secrets: SecretBox) -> bool:
    try:
        _upstream_of(row, secrets)
    except SettingRefused:
        return True
    return False


@operation()
def has_cloud(_: float, cloud: str) -> Steps[bool]:
    (rows,) = yield [("find_cloud", {"cloud": cloud})]
    return bool(rows)


@operation()
def list_clouds(_: float) -> Steps[Sequence[str]]:
    (rows,) = yield [("list_clouds", {})]
    return [row["cloud"] for row in rows]


def _make_key_once(secrets: SecretBox) -> Steps[None]:
    """Make the secret key if there is no secret yet.

    Raise SettingRefused unless it decrypts one of the present secrets.

    With a second secret key, no server could decrypt all secrets.
    """
    (present,) = yield [("list_secrets", {})]
    refusal = None
    for row in present:
        try:
            secrets.decrypt(row["secret"], _secret_context(row["cloud"], row["api_key"]))
            return
        except SettingRefused as error:
            refusal = error
    if refusal is not None:
        raise refusal
    secrets.make_key()


def _key_params(key: ApiKey, secrets: SecretBox) -> Params:
    return params_of(key, "api_key cloud uses scope name created_at revoked_at watermark") | {
        "secret": secrets.encrypt(key.secrets[0], _secret_context(key.cloud, key.api_key)),
        "window_seconds": key.window,
        "allow_v1": int(key.allow_v1),
        "algorithms": json_text(key.algorithms),
    }


def _key_of(row: Row, secrets: SecretBox, now: float) -> ApiKey:
    """Return the key at `now` (Unix seconds), without a rotated secret that has expired by then."""
    rotated = row["previous_secret"] is not None and row["previous_until"] > now
    ciphers = [row["secret"], *([row["previous_secret"]] if rotated else [])]
    context = _secret_context(row["cloud"], row["api_key"])
    return ApiKey(
        api_key=row["api_key"],
        cloud=row["cloud"],
        secrets=tuple(secrets.decrypt(cipher, context) for cipher in ciphers),
        uses=KeyUses(row["uses"]),
        scope=KeyScope(row["scope"]),
        window=row["window_seconds"],
        name=row["name"],
        allow_v1=bool(row["allow_v1"]),
        algorithms=_ALGORITHMS.decode(row["algorithms"]),
        created_at=row["created_at"],
        revoked_at=row["revoked_at"],
        watermark=row["watermark"],
        upstream=None if row["url"] is None else _upstream_of(row, secrets),
        old_secret_until=row["previous_until"] if rotated else None,
    )


def _upstream_params(cloud: str, upstream: Upstream, secrets: SecretBox) -> Params:
    cipher = secrets.encrypt(upstream.secret, _upstream_context(cloud))
    return {"cloud": cloud, "url": url_of(upstream), "url_secret": cipher}


def _upstream_of(row: Row, secrets: SecretBox) -> Upstream:
    """Return the upstream of the row's cloud. Raise SettingRefused if its secret cannot be decrypted."""
    return parse_upstream(row["url"], secrets.decrypt(row["url_secret"], _upstream_context(row["cloud"])))


def _upstream_context(cloud: str) -> str:
    return f"{cloud}/upstream"


def _secret_context(cloud: str, api_key: str) -> str:
    return f"{cloud}/{api_key}"


def _runs_with_secrets(make: Callable[Concatenate[SecretBox, P], Operation[T]]) -> Method[P, T]:
    """Return what `runs` returns, for an operation whose first parameter encrypts and decrypts secrets."""

    async def method(self: "KeyMethods", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(make(self._secrets, *args, **kwargs))

    return method


class KeyMethods(Runner):
    _secrets: SecretBox

    find_key = _runs_with_secrets(find)
    list_keys = _runs_with_secrets(list_all)
    key_clouds = runs(list_clouds)
    unreadable_keys = _runs_with_secrets(list_unreadable)
    past_secrets = _runs_with_secrets(list_past)
    add_key = _runs_with_secrets(add)
    revoke_key = _runs_with_secrets(revoke)
    rotate_key = _runs_with_secrets(rotate)
    has_cloud = runs(has_cloud)

    set_upstream = _runs_with_secrets(set_upstream)
    list_upstreams = _runs_with_secrets(list_upstreams)
    lost_upstreams = _runs_with_secrets(list_lost_upstreams)
