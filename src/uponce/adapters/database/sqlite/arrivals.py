"""Uploads of a group: what their steps may read, and what the transaction does for each."""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from uponce.adapters.database.rows import SecretBox
from uponce.adapters.database.sqlite import audit, ledger
from uponce.adapters.database.sqlite.keys import KeyRing
from uponce.app.ports import Candidate, Clock, Committed, Refusal, Steps
from uponce.core.errors import GrantRefused, UponceError
from uponce.core.values import ApiKey, AuditEvent, AuditRecord, GrantRecord

Commit = Callable[[sqlite3.Connection, Candidate], Committed]

_REMEMBERED_SECONDS = 1.0  # a secret that was rotated out may run out in between


@dataclass(slots=True)
class KeyMemory:
    """API keys that were read, until the database changes. For one thread.

    It only saves a look-up: the commit reads again whether the key is revoked.
    """

    clock: Clock
    secrets: SecretBox
    _keys: dict[str, ApiKey | None] = field(default_factory=dict)
    _version: Any = None
    _since: float = 0.0

    def forget(self) -> None:
        """This connection has changed a key, which `data_version` does not show."""
        self._keys.clear()

    def refresh(self, connection: sqlite3.Connection) -> None:
        now, version = self.clock.now(), (id(connection), *connection.execute("PRAGMA data_version").fetchone())
        if version != self._version or not 0 <= now - self._since < _REMEMBERED_SECONDS:
            self._keys.clear()
            self._version, self._since = version, now

    def find(self, connection: sqlite3.Connection, api_key: str) -> ApiKey | None:
        if api_key not in self._keys:
            self._keys[api_key] = KeyRing(self.secrets, self._since).find(connection, api_key)
        return self._keys[api_key]


@dataclass(frozen=True, slots=True)
class SqliteRecords:
    """The Records port on the connection of the writer, outside of a transaction."""

    connection: sqlite3.Connection
    memory: KeyMemory

    def find_key(self, api_key: str) -> ApiKey | None:
        return self.memory.find(self.connection, api_key)

    def list_keys(self, cloud: str) -> Sequence[ApiKey]:
        return KeyRing(self.memory.secrets, self.memory.clock.now()).list(self.connection, cloud)

    def find_grant(self, key: bytes) -> GrantRecord | None:
        return ledger.find(self.connection, key)


@dataclass(frozen=True, slots=True)
class Group:
    """Makes the jobs of uploads that take the same steps."""

    memory: KeyMemory = field(compare=False)
    steps: Steps[Any]
    most_refusals: int
    commit: Commit = field(compare=False)

    def __call__(
        self, connection: sqlite3.Connection, arrivals: Sequence[Any]
    ) -> Sequence[Callable[[sqlite3.Connection], Committed | UponceError] | UponceError]:
        self.memory.refresh(connection)
        made = self.steps(arrivals, SqliteRecords(connection, self.memory))
        return [each if isinstance(each, UponceError) else partial(self._settle, each) for each in made]

    def _settle(self, candidate: Candidate | Refusal, connection: sqlite3.Connection) -> Committed | UponceError:
        """The refusal of a genuine signature is returned, and not raised: the audit's row of it has to stay."""
        if isinstance(candidate, Refusal):
            return self._refuse(connection, candidate)
        try:
            return self.commit(connection, candidate)
        except GrantRefused as error:
            return self._refuse(connection, Refusal(candidate.grant, candidate.caller, error))

    def _refuse(self, connection: sqlite3.Connection, refusal: Refusal) -> UponceError:
        now = int(self.memory.clock.now())
        record = AuditRecord(now, AuditEvent.REFUSED, refusal.caller, refusal.error.code)
        audit.write_refusal(connection, refusal.grant, record, self.most_refusals)
        return refusal.error
