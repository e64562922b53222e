"""The one writer of a process: a thread that commits what waits in one transaction (group commit).

An fsync costs the same for one upload as for a hundred. Callers submit a function of the connection; the thread
runs each inside its own savepoint, commits all, and only then answers anyone. That holds for refusals too: one
of them may have seen a spend of its own batch, and must not be told before that spend is durable.
"""

import asyncio
import logging
import sqlite3
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from uponce.adapters.database.sqlite.connection import discard
from uponce.adapters.database.sqlite.failures import outcome_unknown, translated, unavailable
from uponce.core.errors import DatabaseUnavailable, UponceError

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]
Prepare = Callable[[sqlite3.Connection, Sequence[Any]], Sequence["Job[Any] | Exception"]]

MAX_BATCH = 256

log = logging.getLogger("uponce")


@dataclass(slots=True, eq=False)
class Waiting:
    """A caller and its job. Of an upload that is to be prepared, `prepare` makes the job."""

    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    job: Job[Any] | None = None
    arrival: Any = None
    prepare: Prepare | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a job came to: a value, or an error."""

    value: Any = None
    error: Exception | None = None


class Writer:
    """Owns the only connection of this process that writes. `connect` is called in the writer's thread.

    `identify` tells which file lies where the database should: a connection to one that was moved or deleted
    goes on writing, into what nobody will open again.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection], identify: Callable[[], Hashable]) -> None:
        self._connect = connect
        self._identify = identify
        self._file: Hashable = None
        self._connection: sqlite3.Connection | None = None
        self._queue: SimpleQueue[Waiting | None] = SimpleQueue()
        self._later: deque[Waiting] = deque()  # taken from the queue, for the next batch
        self._gate = threading.Lock()
        self._open = False
        self._thread = threading.Thread(target=self._serve, name="uponce-database-writer", daemon=True)

    def start(self) -> None:
        self._open = True
        self._thread.start()

    def close(self) -> None:
        """Finish all that was submitted, then end the thread."""
        with self._gate:
            was_open, self._open = self._open, False
            if was_open:
                self._queue.put(None)
        if was_open:
            self._thread.join()

    async def run(self, job: Job[T]) -> T:
        """The job's result, after it is durable; or the job's own exception, after what it saw is durable.

        DatabaseUnavailable or StorageFull: nothing happened. OutcomeUnknown: COMMIT did not answer. A cancelled
        caller changes nothing: its job runs with its batch.
        """
        loop = asyncio.get_running_loop()
        result: T = await self._answer_to(Waiting(loop, loop.create_future(), job))
        return result

    async def run_prepared(self, arrival: Any, prepare: Prepare) -> Any:
        """As `run`, of a job that `prepare` makes of this arrival, together with those of the same batch.

        `prepare` runs before the transaction of the batch, with a connection that only reads. Its jobs must raise
        UponceError before they write, and return, instead of raising, an error that comes with a write.
        """
        loop = asyncio.get_running_loop()
        return await self._answer_to(Waiting(loop, loop.create_future(), None, arrival, prepare))

    async def _answer_to(self, waiting: Waiting) -> Any:
        with self._gate:
            if not self._open:
                raise DatabaseUnavailable("The server is closing its database. Send the same request again.")
            self._queue.put(waiting)
        return await waiting.future

    def _serve(self) -> None:
        while (first := self._later.popleft() if self._later else self._queue.get()) is not None:
            batch = [first]
            try:
                self._transact(batch)
            except Exception as error:  # a thread that ends would leave every later caller waiting for ever
                log.exception("the database writer failed")
                self._answer(batch, [Outcome(error=outcome_unknown(error))] * len(batch))
        self._disconnect()

    def _transact(self, batch: list[Waiting]) -> None:
        failed = unavailable
        try:
            self._fill(batch)
            self._prepare(batch)
            if not batch:
                return
            connection = self._begin()
            self._fill(batch, prepared=True)  # what came while another process held the lock
            outcomes = self._attempt_all(connection, batch)
            failed = outcome_unknown  # from here on nobody can tell without reading back
            connection.execute("COMMIT")
            self._refuse_moved()
            if any(isinstance(outcome.error, DatabaseUnavailable) for outcome in outcomes):
                # The connection cannot do its work: one that was opened while the file was read-only stays so for ever.
                self._disconnect()
        except Exception as error:
            self._disconnect()
            outcomes = [Outcome(error=failed(error)) for _ in batch]
        self._answer(batch, outcomes)

    def _prepare(self, batch: list[Waiting]) -> None:
        """Make the jobs of those that have none. Those that fail already are answered, and leave the batch."""
        groups: dict[Prepare, list[Waiting]] = {}
        for each in batch:
            if each.prepare is not None:
                groups.setdefault(each.prepare, []).append(each)
        failed: list[tuple[Waiting, Outcome]] = []
        for prepare, group in groups.items():
            for each, made in zip(group, self._prepared(prepare, group), strict=True):
                if isinstance(made, Exception):
                    failed.append((each, Outcome(error=made)))
                else:
                    each.job = made
        if failed:
            batch[:] = [each for each in batch if each.job is not None]
            self._answer([each for each, _ in failed], [outcome for _, outcome in failed])

    def _prepared(self, prepare: Prepare, group: Sequence[Waiting]) -> Sequence[Job[Any] | Exception]:
        try:
            connection = self._connected()
            self._refuse_moved()
            return prepare(connection, [each.arrival for each in group])
        except Exception as error:
            self._disconnect()
            return [unavailable(error)] * len(group)

    def _attempt_all(self, connection: sqlite3.Connection, batch: Sequence[Waiting]) -> list[Outcome]:
        """Prepared jobs need no savepoints, because they refuse before they write. If one fails in another way, all
        that was done is undone and done again, each job by itself."""
        try:
            return [
                _attempt(connection, each.job) if each.prepare is None else _attempt_plain(connection, each.job)
                for each in batch
            ]
        except _Torn:
            connection.execute("ROLLBACK")
            connection.execute("BEGIN IMMEDIATE")
            return [_attempt(connection, each.job) for each in batch]

    def _fill(self, batch: list[Waiting], *, prepared: bool = False) -> None:
        """Add what waits; when the batch is `prepared` already, only what needs no preparation."""
        while self._later and not prepared and len(batch) < MAX_BATCH:
            batch.append(self._later.popleft())
        with suppress(Empty):
            while len(batch) < MAX_BATCH:
                waiting = self._queue.get_nowait()
                if waiting is None:  # closing: what precedes it is in the batch, nothing follows
                    self._queue.put(None)
                    return
                (self._later if prepared and waiting.prepare is not None else batch).append(waiting)

    def _begin(self) -> sqlite3.Connection:
        connection = self._connected()
        connection.execute("BEGIN IMMEDIATE")
        self._refuse_moved()
        return connection

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._file = self._identify()  # before connecting: should it change in between, the check finds it
            self._connection = self._connect()
        return self._connection

    def _refuse_moved(self) -> None:
        if self._identify() != self._file:
            raise DatabaseUnavailable(
                "The server's database was replaced. Send the same request again.",
                detail="another file has the name of the database file",
            )

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            discard(connection)

    def _answer(self, batch: Sequence[Waiting], outcomes: Sequence[Outcome]) -> None:
        answers: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Outcome]]] = defaultdict(list)
        for waiting, outcome in zip(batch, outcomes, strict=True):
            answers[waiting.loop].append((waiting.future, outcome))
        for loop, group in answers.items():
            with suppress(RuntimeError):  # a closed loop has nobody waiting
                loop.call_soon_threadsafe(_resolve, group)


class _Torn(Exception):
    """A job failed after it may have written."""


def _attempt_plain(connection: sqlite3.Connection, job: Job[Any] | None) -> Outcome:
    assert job is not None
    try:
        return _outcome_of(job(connection))
    except UponceError as refusal:
        return Outcome(error=refusal)
    except Exception as error:
        if not connection.in_transaction:
            raise
        raise _Torn from error


def _outcome_of(value: Any) -> Outcome:
    return Outcome(error=value) if isinstance(value, UponceError) else Outcome(value)


def _attempt(connection: sqlite3.Connection, job: Job[Any] | None) -> Outcome:
    """Run a job so that its failure undoes its own work only.

    Some errors (full disk, I/O) make SQLite roll back the whole transaction: those are raised, for all.
    """
    assert job is not None
    connection.execute("SAVEPOINT job")
    try:
        outcome = _outcome_of(job(connection))
    except Exception as error:
        if not connection.in_transaction:
            raise
        connection.execute("ROLLBACK TO job")
        outcome = Outcome(error=translated(error))
    connection.execute("RELEASE job")
    return outcome


def _resolve(answers: Sequence[tuple[asyncio.Future[Any], Outcome]]) -> None:
    for future, outcome in answers:
        if future.done():  # the caller was cancelled
            continue
        if outcome.error is not None:
            future.set_exception(outcome.error)
        else:
            future.set_result(outcome.value)
