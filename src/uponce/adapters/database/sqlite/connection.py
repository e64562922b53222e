"""A connection to the file that keeps what it acknowledges: WAL, with an fsync before every COMMIT returns."""

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from uponce.adapters.database.statements import Statement, load
from uponce.adapters.database.steps import Ask, Rows
from uponce.core.errors import SettingRefused

# Several server processes share the file; a writer waits this long for another one's transaction.
BUSY_SECONDS = 5.0

_OLDEST = (3, 37, 0)  # STRICT tables
_FULL = 2
_SETTINGS = (
    "PRAGMA synchronous = FULL",  # NORMAL loses acknowledged commits when the power fails
    "PRAGMA fullfsync = ON",  # macOS: through the drive's cache; no effect elsewhere
    "PRAGMA checkpoint_fullfsync = ON",
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA trusted_schema = OFF",
)


def connect(path: Path, *, factory: type[sqlite3.Connection] = sqlite3.Connection) -> sqlite3.Connection:
    """A checked connection to an existing file; transactions are begun and ended by hand.

    sqlite3.Error when the file cannot be opened, SettingRefused when it would not be durable.
    """
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",  # never a new, empty ledger in place of a lost one
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        factory=factory,
    )
    connection.row_factory = sqlite3.Row
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        for setting in _SETTINGS:
            connection.execute(setting)
        check_durable(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def check_durable(connection: sqlite3.Connection) -> None:
    """SettingRefused unless a commit on this connection survives a power cut."""
    if sqlite3.sqlite_version_info < _OLDEST:
        raise SettingRefused(
            f"SQLite {sqlite3.sqlite_version} is too old; uponce needs {'.'.join(map(str, _OLDEST))}. "
            "Use a newer Python."
        )
    mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    if mode != "wal":
        raise SettingRefused(
            f"The database's journal mode is {mode} and cannot be set to WAL. Keep UPONCE_DATABASE on a local disk "
            "where shared memory files work."
        )
    level = connection.execute("PRAGMA synchronous").fetchone()[0]
    if level < _FULL:
        raise SettingRefused(
            f"The database's synchronous level is {level}, below FULL (2): a power cut could revive spent signatures. "
            "Use an SQLite that honours PRAGMA synchronous."
        )


def discard(connection: sqlite3.Connection) -> None:
    """Roll back and close, whatever state it is in. After a failed fsync the same descriptor is never trusted again."""
    for end in (connection.rollback, connection.close):
        try:
            end()
        except sqlite3.Error:
            continue


class Session:
    """Runs named statements on a connection, one after the other."""

    __slots__ = ("connection", "statements")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.statements: Mapping[str, Statement] = load("sqlite")

    def ask(self, asks: Sequence[Ask]) -> Sequence[Rows]:
        execute, statements, found = self.connection.execute, self.statements, list[Rows]()
        for name, params in asks:
            statement = statements[name]
            cursor = execute(statement.filled(params), params)
            found.append(() if statement.silent else cursor.fetchall())
        return found
