"""SqliteDatabase: ledger, catalog, keys and audit in one SQLite file on a local disk.

All writes go through one thread. What a method returns or refuses is durable by then. Several server processes may
share the file.
"""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from stat import S_ISDIR
from typing import TypeVar

from uponce.adapters.database.committer import Committer, Records
from uponce.adapters.database.database import Database
from uponce.adapters.database.keys import SecretBox
from uponce.adapters.database.sqlite import file, reserve
from uponce.adapters.database.sqlite.connection import Connection, Engine, HeldConnection, connect, unavailable
from uponce.adapters.database.sqlite.readers import Glances, Readers
from uponce.adapters.database.steps import Operation, run
from uponce.adapters.files import exists
from uponce.app.ports import Clock, Fault, LateGroup
from uponce.core.errors import SettingRefused

__all__ = ["SqliteDatabase"]

T = TypeVar("T")


class SqliteDatabase(Database):
    """The Database port (see app/ports/ for what each method promises). Between `open` and `close` only."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        secrets: SecretBox,
        connect: Callable[[Path], Connection] = connect,
    ) -> None:
        self._path = path.absolute()
        self._clock = clock
        self._connect = partial(reserve.connected, partial(connect, self._path), self._path)
        hold = partial(HeldConnection, self._path, self._connect)
        records = Records(secrets, unavailable, knows_grants=True)
        self._checkpointer = file.Checkpointer(hold(), self._path.resolve().parent)
        self._engine = Engine(hold(), clock, records, self._checkpointer)
        self._committer = Committer(self._engine, records)
        self._readers = Readers(hold)
        self.glance = Glances(hold)
        super().__init__(secrets)

    def seal_before_commits(self, late: LateGroup) -> bool:
        self._engine.late = late
        return True

    def open(self, *, upgrade: bool = True) -> None:
        """Create or migrate the file. Raise SettingRefused, with the cure, if it cannot keep the guarantees.

        Without `upgrade`, refuse the file of an earlier release.
        """
        if exists(self._path, S_ISDIR):
            raise SettingRefused(
                f"UPONCE_DATABASE: {self._path} is a folder. Name a file, for example sqlite:///{self._path}/uponce.db."
            )
        file.refuse_restoring(self._path)
        try:
            file.make_private(self._path)
            folder = self._path.resolve().parent  # that of the file itself if the path is a link
            file.refuse_network(folder)
            file.refuse_unwritable(self._path)
            # If several processes switch a new file to WAL at once, some fail: "database is locked".
            with file.locked(folder), closing(self._connect()) as connection:
                file.migrate(connection, upgrade=upgrade)
                _try_write(connection)
                reserve.fill(self._path)
            self.glance.prepare()
        except (OSError, sqlite3.Error) as error:
            raise file.cannot_open(self._path, error) from None
        self._committer.start()

    def describe(self) -> str:
        """Return the checked facts for people, without a secret."""
        with closing(self._connect()) as connection:
            version = file.version_of(connection)
        return f"sqlite:///{self._path}: WAL, synchronous=FULL, local file system, schema version {version}"

    def close(self) -> None:
        """Finish operations that have begun. Later calls raise DatabaseUnavailable."""
        self._committer.close()
        self._checkpointer.close()
        self._readers.close()
        self.glance.close()

    async def read(self, operation: Operation[T]) -> T:
        def look(connection: Connection) -> T:
            self.glance.prepare()
            return run(connection, operation.begin(self._clock.now()))

        return await self._readers.run(look)

    async def write(self, operation: Operation[T]) -> T:
        return await self._committer.run(operation)

    async def integrity(self, *, deep: bool) -> Sequence[Fault]:
        """Return the messages of SQLite's own check, each once."""
        return [Fault(message) for message in await self._readers.run(partial(file.integrity, deep=deep))]


def _try_write(connection: Connection) -> None:
    """Raise sqlite3.Error if the file cannot be written, as on a read-only disk. Nothing is written."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        if not file.is_for_later(error):
            raise
