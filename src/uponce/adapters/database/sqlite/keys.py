"""API keys: rows, rotation, revocation. Secrets are encrypted at rest, bound to their cloud and api_key."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from uponce.adapters.database.rows import KEY_COLUMNS, SecretBox, key_of, key_row, secret_context, unreadable
from uponce.core.errors import InvalidParameter
from uponce.core.values import ApiKey

_SELECT = f"SELECT {KEY_COLUMNS} FROM api_keys"


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Turns rows into keys. `now` is Unix seconds; secrets that have expired by then are omitted."""

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

    def unreadable(self, connection: sqlite3.Connection) -> dict[str, str]:
        """Return the API keys whose secret cannot be decrypted, each with the reason."""
        return unreadable(connection.execute(f"{_SELECT} ORDER BY created_at, rowid"), self.secrets, self.now)

    def add(self, connection: sqlite3.Connection, key: ApiKey) -> None:
        """Store a key. The first key of a database also makes the secret key, inside this transaction: a database
        that has keys never gets a second one."""
        if connection.execute("SELECT 1 FROM api_keys LIMIT 1").fetchone() is None:
            self.secrets.make_key()
        row = key_row(key, self.secrets)
        marks = ", ".join("?" * len(row))
        try:
            connection.execute(f"INSERT INTO api_keys ({KEY_COLUMNS}) VALUES ({marks})", row)
        except sqlite3.IntegrityError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
                raise
            raise InvalidParameter(f"API key {key.api_key} exists already. Choose another one.") from None

    def revoke(self, connection: sqlite3.Connection, api_key: str) -> ApiKey | None:
        """The first revocation's time stays."""
        connection.execute(
            "UPDATE api_keys SET revoked_at = ? WHERE api_key = ? AND revoked_at IS NULL", (int(self.now), api_key)
        )
        return self.find(connection, api_key)

    def rotate(self, connection: sqlite3.Connection, api_key: str, secret: str, overlap: int) -> ApiKey | None:
        """Give a key a new secret. The present secret works for `overlap` more seconds, an older one ends now.

        With an overlap of 0 the present secret need not be readable.
        """
        found = connection.execute("SELECT cloud FROM api_keys WHERE api_key = ?", (api_key,)).fetchone()
        if found is None:
            return None
        connection.execute(
            "UPDATE api_keys SET previous_secret = secret, previous_until = ?, secret = ? WHERE api_key = ?",
            (int(self.now) + overlap, self.secrets.encrypt(secret, secret_context(found[0], api_key)), api_key),
        )
        return self.find(connection, api_key)

    def _key(self, row: tuple[Any, ...]) -> ApiKey:
        return key_of(row, self.secrets, self.now)
