"""SQLite: a connection that keeps what it acknowledges, and the engine that commits on one.

WAL, with an fsync before every COMMIT returns.

Only this module reads SQLite's exceptions. It turns them into errors of core/errors.py.
"""

import errno
import os
import sqlite3
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Protocol

from uponce.adapters.database import failures
from uponce.adapters.database.committer import More, Records
from uponce.adapters.database.statements import Statement, load
from uponce.adapters.database.steps import Ask, Operation, RefusedAfterWrite, Rows, Rules, Session, run
from uponce.adapters.files import has_no_room
from uponce.adapters.system import facts_of
from uponce.app.ports import Clock, LateGroup
from uponce.core.errors import DatabaseUnavailable, SettingRefused, UponceError

MAX_GROUP = 256
COMMITS_PER_CHECKPOINT = 450
OPERATIONS_PER_CHECKPOINT = 2000  # an upload changes some ten pages, in a large group five

_PRIMARY_CODE = 0xFF

# Several server processes share the file. A writer waits this long for another process's transaction.
BUSY_SECONDS = 5.0
_BUSY = f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000:.0f}"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.0002, 0.02  # seconds

_OLDEST = (3, 37, 0)  # STRICT tables
_FULL = 2
_SETTINGS = (
    "PRAGMA synchronous = FULL",  # NORMAL loses acknowledged commits when the power fails
    "PRAGMA fullfsync = ON",  # macOS: through the drive's cache; no effect elsewhere
    "PRAGMA checkpoint_fullfsync = ON",
    "PRAGMA wal_autocheckpoint = 0",  # only the Checkpointer moves pages from the log to the file
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA trusted_schema = OFF",
)


class Connection(sqlite3.Connection):
    """A connection that runs named statements, one after the other: a Session."""

    statements: Mapping[str, Statement] = load("sqlite")

    def ask(self, asks: Sequence[Ask]) -> Sequence[Rows]:
        execute, statements, found = self.execute, self.statements, list[Rows]()
        for name, params in asks:
            statement = statements[name]
            cursor = execute(statement.filled(params) if statement.has_braces else statement.text, params)
            found.append(() if statement.silent else cursor.fetchall())
        return found


def connect(path: Path, *, factory: type[Connection] = Connection, is_copy: bool = False) -> Connection:
    """Return a checked connection to an existing file. The caller begins and ends transactions.

    Raise sqlite3.Error if the file cannot be opened, SettingRefused if it would not be durable. A copy may be on any
    file system, and keeps its kind of journal: it is not checked.
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
        for setting in _SETTINGS:
            connection.execute(setting)
        if not is_copy:
            connection.execute("PRAGMA journal_mode = WAL")
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


def begin(connection: sqlite3.Connection) -> None:
    """Begin a transaction that writes, as soon as no other process has one. Wait for BUSY_SECONDS at most.

    SQLite asks after 1, 2, 5, 10 … 100 ms. A process whose turn has come would sleep on, and others would go before it.
    """
    begun = monotonic()
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                waited = monotonic() - begun
                if code_of(error) != sqlite3.SQLITE_BUSY or waited > BUSY_SECONDS:
                    raise
                sleep(min(max(_FIRST_PAUSE, waited / 50), _LONGEST_PAUSE))
            else:
                return
    finally:
        connection.execute(_BUSY)


def discard(connection: Connection) -> None:
    """Roll back and close, whatever state it is in. After a failed fsync the same descriptor is never trusted again."""
    for end in (connection.rollback, connection.close):
        try:
            end()
        except sqlite3.Error:
            continue


def identity(path: str) -> tuple[int, int]:
    """Return a value that changes if another file gets this path. Raise DatabaseUnavailable without a file."""
    try:
        facts = facts_of(path)
    except OSError as error:
        raise DatabaseUnavailable(
            "The server's database does not answer now. Nothing was stored. Send the same request again later.",
            detail=f"the database file is gone: {error}. Put it back",
        ) from None
    return facts.st_dev, facts.st_ino


class HeldConnection:
    """At most one connection to the file of this path, with these settings.

    `connection` is None until `connected` opens one.

    A connection to a file that was moved or deleted would still read and write it, and no process will open that file
    again. Methods raise DatabaseUnavailable while no file has the path.
    """

    def __init__(self, path: Path, connect: Callable[[], Connection], *settings: str) -> None:
        self._path = os.fspath(path)
        self.folder = path.resolve().parent  # if the path is a link, the log is beside the file that it leads to
        self._connect = connect
        self._settings = settings
        self._file = 0, 0
        self.connection: Connection | None = None

    def connected(self) -> Connection:
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


class Log(Protocol):
    """The log of the database, as the thread that commits sees it: file.Checkpointer."""

    commits: int = 0
    operations: int = 0
    is_long: bool = False

    def note_commit(self, operations: int = 1) -> None:
        """Count a commit. Call it after each commit of this process, in the thread that commits."""
        self.commits += 1
        self.operations += operations
        if self.commits >= COMMITS_PER_CHECKPOINT or self.operations >= OPERATIONS_PER_CHECKPOINT:
            self.commits = self.operations = 0
            self.make_due()

    def make_due(self) -> None:
        """Let another thread move pages of the log to the file."""

    def finish(self, connection: Connection) -> None:
        """Empty the log while no commit is under way."""


class Engine:
    """Owns the connection that `held` opens, in the thread that commits."""

    most = MAX_GROUP
    seconds = BUSY_SECONDS

    def __init__(self, held: HeldConnection, clock: Clock, records: Records, log: Log) -> None:
        self._held = held
        self._clock = clock
        self._records = records
        self._log = log
        self.late: LateGroup | None = None

    def choose(self, operations: Sequence[Operation[Any]]) -> Sequence[bool]:
        return [True] * len(operations)

    def look(self) -> tuple[Session, float, Hashable]:
        connection = self._held.connected()
        self._refuse_moved()
        version = connection.execute("PRAGMA data_version").fetchone()[0]
        return connection, self._clock.now(), (id(connection), version)

    def transact(self, operations: Sequence[Operation[Any]], more: More) -> Sequence[Any]:
        failed = unavailable
        try:
            connection = self._held.connected()
            if self._log.is_long:
                self._refuse_moved()
                self._log.finish(connection)
            begin(connection)
            self._refuse_moved()
            outcomes = self._run_all(connection, [*operations, *more()])
            if self.late is not None:
                self.late.seal()
            failed = outcome_unknown  # from here on only reading back shows whether it was committed
            connection.execute("COMMIT")
            self._log.note_commit(len(outcomes))
            self._refuse_moved()
        except Exception as error:
            self.disconnect()
            if self.late is not None:
                self.late.abandon()
            raise failed(seen_full(error, self._held.folder)) from error
        if any(isinstance(outcome, DatabaseUnavailable) for outcome in outcomes):
            # The connection cannot do its work. If it was opened on a read-only file, it never becomes writable.
            self.disconnect()
        return outcomes

    def wait(self, operations: Sequence[Operation[Any]], others_wait: Callable[[], bool]) -> Sequence[Any]:
        """Return what `transact` returns. There is one lock for all operations, so none is TAKEN."""
        return self.transact(operations, lambda: ())

    def disconnect(self) -> None:
        self._held.drop()

    def _run_all(self, connection: Connection, operations: Sequence[Operation[Any]]) -> Sequence[Any]:
        """Run all operations, and return their outcomes. They refuse before they write, so they need no savepoints.

        If an operation fails in another way, all work is rolled back and done again, each operation apart from the
        others.
        """
        if any(each.rules is Rules.OWN for each in operations):
            self._records.forget()
        try:
            return [self._outcome(connection, each) for each in operations]
        except Exception:
            if not connection.in_transaction:
                raise
        connection.execute("ROLLBACK")
        begin(connection)
        return [self._outcome_apart(connection, each) for each in operations]

    def _outcome(self, connection: Connection, operation: Operation[Any]) -> Any:
        try:
            return run(connection, operation.begin(self._clock.now()))
        except UponceError as refusal:
            return refusal

    def _outcome_apart(self, connection: Connection, operation: Operation[Any]) -> Any:
        """Return the outcome of an operation whose failure rolls back its own work only.

        Some errors (full disk, I/O) make SQLite roll back the whole transaction. These are raised, for all operations.
        """
        connection.execute("SAVEPOINT operation")
        try:
            outcome = self._outcome(connection, operation)
        except Exception as error:
            if not connection.in_transaction:
                raise
            connection.execute("ROLLBACK TO operation")
            outcome = error.__cause__ if isinstance(error, RefusedAfterWrite) else translated(error)
        connection.execute("RELEASE operation")
        return outcome

    def _refuse_moved(self) -> None:
        if self._held.is_moved():
            raise DatabaseUnavailable(
                "The server's database was replaced. Send the same request again.",
                detail="another file has the name of the database file",
            )


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


def translated(error: Exception) -> Exception:
    """Return the error that a caller gets for an exception of its work. Domain errors stay as they are."""
    if isinstance(error, sqlite3.Error):
        return unavailable(error)
    if isinstance(error, UnicodeError):
        return failures.no_text()
    return error


def seen_full(error: Exception, folder: Path) -> Exception:
    """Return the error, or one of a full disk if a quota of the folder is used up.

    SQLite reports ENOSPC as a full disk, and EDQUOT as a write that failed (unixWrite in os_unix.c).
    """
    is_write = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_IOERR_WRITE
    if not is_write or not has_no_room(folder):
        return error
    full = sqlite3.OperationalError(f"{error}, and the quota of {folder} is used up")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    return full


def _is_full(error: Exception) -> bool:
    return code_of(error) == sqlite3.SQLITE_FULL


def lacks_room(error: Exception) -> bool:
    """Return whether a disk has no room for the file, or for the file of locks that SQLite needs beside it.

    It does not show the outcome of a COMMIT.
    """
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return _is_full(error) or getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_IOERR_SHMSIZE


def code_of(error: Exception) -> int:
    """Return SQLite's primary result code, or 0 for another error."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return 0 if code is None else code & _PRIMARY_CODE
