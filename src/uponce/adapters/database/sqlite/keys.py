"""API keys: rows, rotation, revocation. Secrets are encrypted at rest, bound to their cloud and api_key."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from uponce.core.errors import InvalidParameter
from uponce.core.signature import Algorithm
from uponce.core.values import ApiKey, KeyScope, KeyUses

_COLUMNS = (
    "api_key, cloud, secret, previous_secret, previous_until, uses, scope, window_seconds, name, allow_v1, "
    "algorithms, created_at, revoked_at, watermark"
)
_SELECT = f"SELECT {_COLUMNS} FROM api_keys"


class SecretBox(Protocol):
    """Encrypts API secrets. What was encrypted in one context does not decrypt in another."""

    def encrypt(self, plain: str, context: str) -> bytes: ...

    def decrypt(self, cipher: bytes, context: str) -> str: ...


@dataclass(frozen=True, slots=True)
class KeyRing:
    """What turns rows into keys. `now` is Unix seconds; secrets that have run out by then are left away."""

    secrets: SecretBox
    now: float

    def find(self, connection: sqlite3.Connection, api_key: str) -> ApiKey | None:
        row = connection.execute(f"{_SELECT} WHERE api_key = ?", (api_key,)).fetchone()
        return None if row is None else self._key(row)

    def list(self, connection: sqlite3.Connection, cloud: str | None) -> Sequence[ApiKey]:
        """Oldest first."""
        where = "WHERE cloud = :cloud" if cloud is not None else ""
        rows = connection.execute(f"{_SELECT} {where} ORDER BY created_at, rowid", {"cloud": cloud})
        return [self._key(row) for row in rows]

    def add(self, connection: sqlite3.Connection, key: ApiKey) -> None:
        row = (
            key.api_key,
            key.cloud,
            self.secrets.encrypt(key.secrets[0], _context(key.cloud, key.api_key)),
            None,
            None,
            key.uses,
            key.scope,
            key.window,
            key.name,
            key.allow_v1,
            msgspec.json.encode(key.algorithms).decode(),
            key.created_at,
            key.revoked_at,
            key.watermark,
        )
        marks = ", ".join("?" * len(row))
        try:
            connection.execute(f"INSERT INTO api_keys ({_COLUMNS}) VALUES ({marks})", row)
        except sqlite3.IntegrityError:
            raise InvalidParameter(f"API key {key.api_key} exists already. Choose another.") from None

    def revoke(self, connection: sqlite3.Connection, api_key: str) -> ApiKey | None:
        """The first revocation's time stays."""
        connection.execute(
            "UPDATE api_keys SET revoked_at = ? WHERE api_key = ? AND revoked_at IS NULL", (int(self.now), api_key)
        )
        return self.find(connection, api_key)

    def rotate(self, connection: sqlite3.Connection, api_key: str, secret: str, overlap: int) -> ApiKey | None:
        """The present secret counts for `overlap` more seconds; one that was rotated out before ends now."""
        key = self.find(connection, api_key)
        if key is None:
            return None
        connection.execute(
            "UPDATE api_keys SET previous_secret = secret, previous_until = ?, secret = ? WHERE api_key = ?",
            (int(self.now) + overlap, self.secrets.encrypt(secret, _context(key.cloud, api_key)), api_key),
        )
        return self.find(connection, api_key)

    def _key(self, row: tuple[Any, ...]) -> ApiKey:
        api_key, cloud, secret, previous, previous_until, uses, scope, window, name, allow_v1, algorithms, *times = row
        ciphers = [secret] if previous is None or previous_until <= self.now else [secret, previous]
        created_at, revoked_at, watermark = times
        return ApiKey(
            api_key=api_key,
            cloud=cloud,
            secrets=tuple(self.secrets.decrypt(cipher, _context(cloud, api_key)) for cipher in ciphers),
            uses=KeyUses(uses),
            scope=KeyScope(scope),
            window=window,
            name=name,
            allow_v1=bool(allow_v1),
            algorithms=msgspec.json.decode(algorithms, type=tuple[Algorithm, ...]),
            created_at=created_at,
            revoked_at=revoked_at,
            watermark=watermark,
        )


def _context(cloud: str, api_key: str) -> str:
    return f"{cloud}/{api_key}"
