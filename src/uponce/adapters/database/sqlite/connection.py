"""A connection to the file that keeps what it acknowledges: WAL, with an fsync before every COMMIT returns.

Only this module reads SQLite's exceptions. It turns them into errors of core/errors.py.
"""

import errno
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from uponce.adapters.database import failures
from uponce.adapters.database.statements import Statement, load
from uponce.adapters.database.steps import Ask, Rows
from uponce.core.errors import DatabaseUnavailable, SettingRefused, UponceError

_PRIMARY_CODE = 0xFF

# Several server processes share the file. A writer waits this long for another process's transaction.
BUSY_SECONDS = 5.0

_OLDEST = (3, 37, 0)  # STRICT tables
_FULL = 2
_SETTINGS = (
    "PRAGMA synchronous = FULL",  # NORMAL loses acknowledged commits when the power fails
    "PRAGMA fullfsync = ON",  # macOS: through the drive's cache; no effect elsewhere
    "PRAGMA checkpoint_fullfsync = ON",
    # Pages of 4 KiB. Many commits change the same page of an index. With fewer checkpoints, it is written less often
    # (SQLite's default: 1,000).
    "PRAGMA wal_autocheckpoint = 8000",
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA trusted_schema = OFF",
)


def connect(path: Path, *, factory: type[sqlite3.Connection] = sqlite3.Connection) -> sqlite3.Connection:
    """Return a checked connection to an existing file. The caller begins and ends transactions.

    Raise sqlite3.Error if the file cannot be opened, SettingRefused if it would not be durable.
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
    """Raise SettingRefused unless a commit on this connection survives a power cut."""
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


def identity(path: Path) -> tuple[int, int]:
    """Return a value that is the same while the same file has this path.

    Raise DatabaseUnavailable without a file.
    """
    try:
        facts = path.stat()
    except OSError as error:
        raise DatabaseUnavailable(
            "The server's database does not answer now. Nothing was stored. Send the same request again later.",
            detail=f"the database file is gone: {error}. Put it back",
        ) from None
    return facts.st_dev, facts.st_ino


class Held:
    """At most one connection to the file of this path, with these settings.

    `connection` is None until `connected` opens one.

    A connection to a file that was moved or deleted would still read and write it, and no process will open that file
    again. Methods raise DatabaseUnavailable while no file has the path.
    """

    def __init__(self, path: Path, connect: Callable[[], sqlite3.Connection], *settings: str) -> None:
        self._path = path
        self._connect = connect
        self._settings = settings
        self._file = 0, 0
        self.connection: sqlite3.Connection | None = None

    def connected(self) -> sqlite3.Connection:
        """Return the connection. Open it if needed."""
        connection = self.connection
        if connection is None:
            self._file = identity(self._path)  # before connecting: if it changes in between, `is_moved` finds out
            connection = self._connect()
            for setting in self._settings:
                connection.execute(setting)
            self.connection = connection
        return connection

    def is_moved(self) -> bool:
        """Return whether the connection is to a file that no longer has the database's path."""
        return self.connection is not None and identity(self._path) != self._file

    def drop(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            discard(connection)


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
            cursor = execute(statement.filled(params) if statement.has_braces else statement.text, params)
            found.append(() if statement.silent else cursor.fetchall())
        return found


def unavailable(error: Exception) -> UponceError:
    """Return the error for work that certainly did not happen."""
    if isinstance(error, UponceError):
        return error
    detail = failures.detail_of(error)
    return failures.no_space(detail) if _is_full(error) else failures.no_answer(detail)


def outcome_unknown(error: Exception) -> UponceError:
    """Return the error for work whose COMMIT did not answer.

    The log may hold it whole, and recovery would then apply it.

    A full disk is certain. SQLite reports it if a frame of the log was not written whole (unixWrite in os_unix.c). The
    commit's frame comes last, and without it recovery applies nothing of the transaction.
    """
    if _is_full(error):
        return unavailable(error)
    return failures.outcome_unknown(error)


_CURES = {
    sqlite3.SQLITE_READONLY: "Let the user of the server write this file and its folder, or mount the disk read-write",
    sqlite3.SQLITE_CANTOPEN: "Let the user of the server read and write this file and its folder, and free disk space",
    sqlite3.SQLITE_PERM: "Let the user of the server read and write this file and its folder",
    sqlite3.SQLITE_NOTADB: "Point UPONCE_DATABASE to the database of uponce, or to a new file",
    sqlite3.SQLITE_CORRUPT: "Stop every server on this file and restore it from a backup",
    sqlite3.SQLITE_FULL: "Free disk space",
    sqlite3.SQLITE_IOERR: "Check the disk and its free space",
    sqlite3.SQLITE_BUSY: "Stop the other program that holds the file",
}
_OF_SYSTEM = {
    errno.EROFS: sqlite3.SQLITE_READONLY,
    errno.EACCES: sqlite3.SQLITE_PERM,
    errno.EPERM: sqlite3.SQLITE_PERM,
    errno.ENOSPC: sqlite3.SQLITE_FULL,
    errno.EIO: sqlite3.SQLITE_IOERR,
}
_LATER = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY)


def cannot_open(path: Path, error: Exception) -> SettingRefused:
    """Return the error of a start-up that failed, with cause and cure."""
    number = error.errno if isinstance(error, OSError) else None
    cure = _CURES.get(
        _OF_SYSTEM.get(number or 0, _code(error)),
        "Point UPONCE_DATABASE to a file in a folder that the server may write",
    )
    return SettingRefused(f"The database {path} cannot be opened: {error}. {cure}.")


def is_for_later(error: sqlite3.Error) -> bool:
    """Return whether a server may start with this failure of a write: a full disk refuses uploads, and may get room."""
    return _code(error) in _LATER


def translated(error: Exception) -> Exception:
    """Return the error that a caller gets for an exception of its work. Domain errors stay as they are."""
    if isinstance(error, sqlite3.Error):
        return unavailable(error)
    if isinstance(error, UnicodeError):
        return failures.no_text()
    return error


def _is_full(error: Exception) -> bool:
    return _code(error) == sqlite3.SQLITE_FULL


def _code(error: Exception) -> int:
    """Return SQLite's primary result code, or 0 for another error."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return 0 if code is None else code & _PRIMARY_CODE
