"""The one writer of a process: a thread that commits what waits in one transaction (group commit).

An fsync costs the same for one upload as for a hundred. Callers submit a function of the connection; the thread
runs each inside its own savepoint, commits all, and only then answers anyone. That holds for refusals too: one
of them may have seen a spend of its own batch, and must not be told before that spend is durable.
"""

import asyncio
import logging
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from uponce.adapters.database.sqlite.connection import discard
from uponce.adapters.database.sqlite.failures import outcome_unknown, translated, unavailable
from uponce.core.errors import DatabaseUnavailable

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]

MAX_BATCH = 256

log = logging.getLogger("uponce")


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """A caller and its job."""

    job: Job[Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


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
        waiting = Waiting(job, loop, loop.create_future())
        with self._gate:
            if not self._open:
                raise DatabaseUnavailable("The server is closing its database. Send the same request again.")
            self._queue.put(waiting)
        result: T = await waiting.future
        return result

    def _serve(self) -> None:
        while (first := self._queue.get()) is not None:
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
            connection = self._begin()
            self._fill(batch)  # who came while another process held the lock
            outcomes = [_attempt(connection, waiting.job) for waiting in batch]
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

    def _fill(self, batch: list[Waiting]) -> None:
        with suppress(Empty):
            while len(batch) < MAX_BATCH:
                waiting = self._queue.get_nowait()
                if waiting is None:  # closing: what precedes it is in the batch, nothing follows
                    self._queue.put(None)
                    return
                batch.append(waiting)

    def _begin(self) -> sqlite3.Connection:
        if self._connection is None:
            self._file = self._identify()  # before connecting: should it change in between, the check finds it
            self._connection = self._connect()
        self._connection.execute("BEGIN IMMEDIATE")
        self._refuse_moved()
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


def _attempt(connection: sqlite3.Connection, job: Job[Any]) -> Outcome:
    """Run a job so that its failure undoes its own work only.

    Some errors (full disk, I/O) make SQLite roll back the whole transaction: those are raised, for all.
    """
    connection.execute("SAVEPOINT job")
    try:
        outcome = Outcome(job(connection))
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
