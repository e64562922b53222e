"""API keys: rows, rotation, revocation. Secrets are encrypted at rest, bound to their cloud and api_key."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from uponce.adapters.database.postgres.clock import Moment
from uponce.adapters.database.postgres.connection import Connection
from uponce.adapters.database.rows import KEY_COLUMNS, SecretBox, key_of, key_row, secret_context, unreadable
from uponce.core.errors import InvalidParameter
from uponce.core.values import ApiKey

_MARKS = ", ".join(["%s"] * len(KEY_COLUMNS.split(", ")))


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Turns rows into keys. Secrets that have expired by the database's clock are omitted."""

    secrets: SecretBox
    moment: Moment

    async def find(self, connection: Connection, api_key: str) -> ApiKey | None:
        found = await self._select(connection, "api_key = %(value)s", api_key)
        return found[0] if found else None

    async def list(self, connection: Connection, cloud: str | None) -> Sequence[ApiKey]:
        """Oldest first."""
        return await self._select(connection, "cloud = coalesce(%(value)s, cloud)", cloud)

    async def add(self, connection: Connection, key: ApiKey) -> None:
        """Store a key, under a lock that excludes other changes of keys. The first key of a database also makes the
        secret key: a database that has keys never gets a second one."""
        present = await connection.execute("SELECT FROM api_keys LIMIT 1")
        if await present.fetchone() is None:
            self.secrets.make_key()
        added = await connection.execute(
            f"INSERT INTO api_keys ({KEY_COLUMNS}) VALUES ({_MARKS}) ON CONFLICT DO NOTHING RETURNING id",
            key_row(key, self.secrets),
        )
        if await added.fetchone() is None:
            raise InvalidParameter(f"API key {key.api_key} exists already. Choose another one.")

    async def revoke(self, connection: Connection, api_key: str) -> ApiKey | None:
        """The first revocation's time stays."""
        await connection.execute(
            "UPDATE api_keys SET revoked_at = %s WHERE api_key = %s AND revoked_at IS NULL",
            (int(await self.moment.read(connection)), api_key),
        )
        return await self.find(connection, api_key)

    async def rotate(self, connection: Connection, api_key: str, secret: str, overlap: int) -> ApiKey | None:
        """Give a key a new secret. The present secret works for `overlap` more seconds, an older one ends now.

        With an overlap of 0 the present secret need not be readable.
        """
        found = await connection.execute("SELECT cloud FROM api_keys WHERE api_key = %s", (api_key,))
        row = await found.fetchone()
        if row is None:
            return None
        until = int(await self.moment.read(connection)) + overlap
        cipher = self.secrets.encrypt(secret, secret_context(row[0], api_key))
        await connection.execute(
            "UPDATE api_keys SET previous_secret = secret, previous_until = %s, secret = %s WHERE api_key = %s",
            (until, cipher, api_key),
        )
        return await self.find(connection, api_key)

    async def unreadable(self, connection: Connection) -> dict[str, str]:
        """Return the API keys whose secret cannot be decrypted, each with the reason."""
        rows = await self._rows(connection, "true", None)
        now = rows[0][0] if rows else 0
        return unreadable([tuple(row) for _, *row in rows], self.secrets, now)

    async def _select(self, connection: Connection, where: str, value: str | None) -> Sequence[ApiKey]:
        rows = await self._rows(connection, where, value)
        return [key_of(tuple(row), self.secrets, now) for now, *row in rows]

    async def _rows(self, connection: Connection, where: str, value: str | None) -> Sequence[tuple[Any, ...]]:
        rows = await connection.execute(
            f"SELECT {self.moment.sql}, {KEY_COLUMNS} FROM api_keys WHERE {where} ORDER BY created_at, id",
            self.moment.values | {"value": value},
        )
        return await rows.fetchall()
