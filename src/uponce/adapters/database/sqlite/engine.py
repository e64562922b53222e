"""The transactions of SQLite: the only connection of a process that writes, for the thread that commits.

Their writes go into the log first. Another thread moves them to the database file (Checkpointer).
"""

import sqlite3
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from uponce.adapters.database.committer import More, Records
from uponce.adapters.database.sqlite.connection import Held, Session, outcome_unknown, translated, unavailable
from uponce.adapters.database.steps import Operation, RefusedAfterWrite, Rules, run
from uponce.app.ports import Clock
from uponce.core.errors import DatabaseUnavailable, UponceError

MAX_GROUP = 256
COMMITS_PER_CHECKPOINT = 450  # a commit changes some ten pages, and moves them itself after 8,000 (connection.py)


class Engine:
    """Owns the connection that `held` opens, in the thread that commits."""

    most = MAX_GROUP

    def __init__(
        self, held: Held, clock: Clock, records: Records, committed: Callable[[], None] = lambda: None
    ) -> None:
        self._held = held
        self._clock = clock
        self._records = records
        self._committed = committed

    def choose(self, operations: Sequence[Operation[Any]]) -> Sequence[bool]:
        return [True] * len(operations)

    def look(self) -> tuple[Session, float, Hashable]:
        connection = self._held.connected()
        self._refuse_moved()
        version = connection.execute("PRAGMA data_version").fetchone()[0]
        return Session(connection), self._clock.now(), (id(connection), version)

    def transact(self, operations: Sequence[Operation[Any]], more: More) -> Sequence[Any]:
        failed = unavailable
        try:
            connection = self._held.connected()
            connection.execute("BEGIN IMMEDIATE")
            self._refuse_moved()
            outcomes = self._run_all(Session(connection), [*operations, *more()])
            failed = outcome_unknown  # from here on only reading back shows whether it was committed
            connection.execute("COMMIT")
            self._committed()
            self._refuse_moved()
        except Exception as error:
            self.disconnect()
            raise failed(error) from error
        if any(isinstance(outcome, DatabaseUnavailable) for outcome in outcomes):
            # The connection cannot do its work. If it was opened on a read-only file, it never becomes writable.
            self.disconnect()
        return outcomes

    def disconnect(self) -> None:
        self._held.drop()

    def _run_all(self, session: Session, operations: Sequence[Operation[Any]]) -> Sequence[Any]:
        """Run all operations, and return their outcomes. They refuse before they write, so they need no savepoints.

        If an operation fails in another way, all work is rolled back and done again, each operation apart from the
        others.
        """
        if any(each.rules is Rules.OWN for each in operations):
            self._records.forget()
        try:
            return [self._outcome(session, each) for each in operations]
        except Exception:
            if not session.connection.in_transaction:
                raise
        session.connection.execute("ROLLBACK")
        session.connection.execute("BEGIN IMMEDIATE")
        return [self._outcome_apart(session, each) for each in operations]

    def _outcome(self, session: Session, operation: Operation[Any]) -> Any:
        try:
            return run(session, operation.begin(self._clock.now()))
        except UponceError as refusal:
            return refusal

    def _outcome_apart(self, session: Session, operation: Operation[Any]) -> Any:
        """Return the outcome of an operation whose failure rolls back its own work only.

        Some errors (full disk, I/O) make SQLite roll back the whole transaction. These are raised, for all operations.
        """
        connection = session.connection
        connection.execute("SAVEPOINT operation")
        try:
            outcome = self._outcome(session, operation)
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


class Checkpointer:
    """Moves committed pages from the log to the database file, so that few commits wait for it.

    SQLite moves them inside of the commit that makes the log too long. At a thousand commits a second, one in fifty
    then takes ten times as long. This thread leaves such a commit little to do. PASSIVE waits for no other connection.
    SQLite can reuse the log only when every page of it was moved, so some commits still move its last pages. After a
    failure this thread tries again later. The next commit that moves pages reports that failure.

    If another file has the path, the log may belong to that file. Its pages must not get into the old file, and must
    not count as moved.
    """

    def __init__(self, held: Held) -> None:
        self._held = held
        self._commits = 0
        self._due = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="uponce-checkpointer", daemon=True)

    def note_commit(self) -> None:
        """Count a commit. Call it after each commit of this process, in the thread that commits."""
        self._commits += 1
        if self._commits == COMMITS_PER_CHECKPOINT:  # a command, or an idle server, needs no thread for it
            self._thread.start()
        if self._commits % COMMITS_PER_CHECKPOINT == 0:
            self._due.set()

    def close(self) -> None:
        self._closed = True
        self._due.set()
        if self._thread.is_alive():
            self._thread.join()

    def _serve(self) -> None:
        while self._due.wait() and not self._closed:
            self._due.clear()
            try:
                if self._held.is_moved():
                    self._held.drop()  # closing it moves nothing (pager.c: HAS_MOVED)
                self._held.connected().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            except (sqlite3.Error, UponceError):
                self._held.drop()
        self._held.drop()
