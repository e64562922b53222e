"""The connections of one process: one for the thread that commits, the others for reads and for separate transactions.

A dead or slow connection is dropped, and the next caller gets a new one. Not psycopg_pool: it reconnects in the
background with back-off. Here, a request that finds no connection is refused at once.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import accumulate
from time import monotonic
from typing import Any, TypeVar

from psycopg.pq import TransactionStatus

from uponce.adapters.database import failures
from uponce.adapters.database.committer import TAKEN, More
from uponce.adapters.database.failures import closed, no_thread, outcome_unknown
from uponce.adapters.database.postgres.connection import (
    DatabaseAddress,
    connect,
    cut,
    is_dead,
    is_in_the_way,
    is_of_data,
    unavailable,
)
from uponce.adapters.database.postgres.session import Session
from uponce.adapters.database.steps import Operation, RefusedAfterWrite, Rules, run, run_in_step, waves
from uponce.adapters.threads import NoThread, Threads, ThreadsEnded
from uponce.app.ports import Clock
from uponce.core.errors import DatabaseUnavailable, SettingRefused, UponceError

T = TypeVar("T")

MAX_GROUP = 64
_MOMENT = 500  # milliseconds of a wait for locks, after which the thread looks whether other operations wait
# So long may taken locks keep other operations waiting. On two busy cores, groups of healthy servers took up to 0.8 s.
_STUCK_SECONDS = 2.0
_CANCEL_SECONDS = 1.0
_ANSWERED = (TransactionStatus.IDLE, TransactionStatus.INERROR)  # nothing is under way
_MAX_WAVES = 8  # in one transaction: so many uses of one grant do not keep others waiting


class NotCommitted(Exception):
    """Nothing was committed: a statement could not be sent, or the server refused it and the transaction."""


class Pool:
    """At most `size` connections, one of them for the engine.

    `admit` checks each new one before its first use. One that `is_left` is not used again.
    """

    def __init__(
        self,
        address: DatabaseAddress,
        size: int,
        clock: Clock | None,
        admit: Callable[[Session], None],
        is_left: Callable[[Session], bool],
    ) -> None:
        self._address = address
        self.seconds = address.seconds
        self._size = size - 1
        self._clock = clock
        self._admit = admit
        self._is_left = is_left
        self._idle: list[Session] = []
        self._open = False
        self._lending = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._free = asyncio.Semaphore(self._size)
        self.waiting_places = (self._size + 1) // 2
        self._may_wait = asyncio.Semaphore(self.waiting_places)
        self._threads = Threads(self._size, "uponce-database")

    def open(self) -> None:
        self._open = True

    def close(self) -> None:
        """Close all connections. Later calls raise DatabaseUnavailable."""
        self._open = False
        self._threads.close()
        with suppress(IndexError):
            while True:
                discard(self._idle.pop())

    async def run(self, work: Callable[[Session], T], *, patient: bool = False, waits: bool = False) -> T:
        """Return what the work returns, in a thread. A cancelled caller ends the connection of its work.

        Work that `waits` gets half of the connections at most: a server that hangs may hold the lock that it needs.
        """
        lent: list[Session] = []
        given_up = False

        def lend() -> T:
            session = self.borrow()
            with self._lending:
                if not given_up:
                    lent.append(session)
            if not lent:
                self._give_back(session)
                raise closed()  # for no caller
            session.limit(patient=patient)
            try:
                return work(session)
            finally:
                with self._lending:
                    lent.pop()
                self._give_back(session)

        async with self._turn(waits=waits):
            try:
                return await self._threads.run(lend)
            except ThreadsEnded:
                raise closed() from None
            except NoThread as error:
                raise no_thread(error) from error
            except asyncio.CancelledError:
                with self._lending:  # a session that was given back may belong to another caller by now
                    given_up = True
                    for session in lent:
                        cut(session.connection)
                raise

    @asynccontextmanager
    async def _turn(self, *, waits: bool) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._free = loop, asyncio.Semaphore(self._size)
            self._may_wait = asyncio.Semaphore(self.waiting_places)
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(self._address.seconds):
                    for places in (self._may_wait, self._free) if waits else (self._free,):
                        await held.enter_async_context(places)
            except TimeoutError:
                many = f"{self.waiting_places} of {self._size}" if waits else f"all {self._size}"
                raise DatabaseUnavailable(
                    "The server's database is too slow now. Nothing was stored. Send the same request again.",
                    detail=f"{many} connections (UPONCE_DATABASE_CONNECTIONS) were busy for "
                    f"{self._address.seconds} seconds (UPONCE_DATABASE_SECONDS)",
                ) from None
            yield

    def borrow(self) -> Session:
        """Return an admitted session on a live connection. Raise DatabaseUnavailable if it cannot be made."""
        if not self._open:
            raise closed()
        with suppress(IndexError):  # instead of a check before: another thread may take the last one in between
            while True:
                session = self._idle.pop()
                if self.is_usable(session):
                    return session
                discard(session)
        return self.new()

    def is_usable(self, session: Session) -> bool:
        """Return whether an idle session is alive, and in the present history."""
        return not is_dead(session.connection) and not self._is_left(session)

    def new(self) -> Session:
        try:
            session = Session(connect(self._address), self._clock)
            try:
                session.limit()
                self._admit(session)
            except BaseException:
                discard(session)
                raise
        except SettingRefused as error:
            raise DatabaseUnavailable(
                "The server's database is not set up correctly. Nothing was stored. Report this to the operator.",
                detail=error.message,
                retry_after=60,
            ) from None
        except Exception as error:
            raise unavailable(error) from error
        return session

    def _give_back(self, session: Session) -> None:
        """Keep the session, unless the work left a transaction unfinished."""
        if self._open and session.connection.info.transaction_status is TransactionStatus.IDLE:
            self._idle.append(session)
        else:
            discard(session)


def read(session: Session, operation: Operation[T]) -> T:
    """Return what the operation finds. Statements that do not need each other's rows are sent together."""
    in_transaction = operation.patient or operation.first
    try:
        with session.connection.pipeline():
            if in_transaction:
                session.begin_reading(operation.first, patient=operation.patient)
            result = run(session, operation.begin(session.moment() if operation.timed else 0.0))
            if in_transaction:
                session.connection.execute("COMMIT")
    except Exception as error:
        raise unavailable(error) from error
    return result


def write(session: Session, operation: Operation[T], *, confirms: bool = False) -> T:
    """Run the operation in one transaction, and return its result. A refusal is rolled back, and keeps the connection.

    If the transaction `confirms`, also what it only found is as durable as a commit. That holds for shared rules too,
    and for own rules with a result. Raise OutcomeUnknown if COMMIT got no answer.
    """
    refused: BaseException | None = None
    failed: Callable[[Exception], UponceError] = unavailable
    try:
        with session.connection.pipeline():
            now = session.begin(operation.rules, list(operation.numbers()), patient=operation.patient)
            try:
                result = run(session, operation.begin(now))
            except (UponceError, RefusedAfterWrite) as refusal:
                refused = refusal.__cause__ if isinstance(refusal, RefusedAfterWrite) else refusal
                session.run("roll_back")
            else:
                # Housekeeping, which owns the rules, often finds nothing. It must not wait for a standby then.
                if confirms or operation.rules is Rules.SHARED or (operation.rules is Rules.OWN and result):
                    session.run("confirm")
                failed = outcome_unknown
                session.commit()
    except Exception as error:
        if session.connection.info.transaction_status is TransactionStatus.INERROR:  # a statement failed before COMMIT
            failed = unavailable
        raise failed(error) from error
    if refused is not None:
        raise refused
    return result


class Engine:
    """The transactions of groups, for the thread that commits."""

    most = MAX_GROUP

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._session: Session | None = None
        self._stuck: dict[int, float] = {}  # the locks that were waited for in vain, until when they count as stuck

    @property
    def seconds(self) -> float:
        return self._pool.seconds

    def choose(self, operations: Sequence[Operation[Any]]) -> Sequence[bool]:
        early = [wave < _MAX_WAVES for wave in waves(operations)]
        return [each and count <= self.most for each, count in zip(early, accumulate(early), strict=True)]

    def look(self) -> tuple[Session, float, Hashable]:
        session = self._connected()
        return session, session.moment(), object()

    def transact(self, operations: Sequence[Operation[Any]], more: More) -> Sequence[Any]:
        return self._outcomes(operations, None)

    def wait(self, operations: Sequence[Operation[Any]], others_wait: Callable[[], bool]) -> Sequence[Any]:
        """Return what the Engine's `wait` returns.

        A lock that stays taken counts as stuck for a while. Operations that need such a lock are refused at once.
        """
        begun = monotonic()
        try:
            while monotonic() < begun + self._pool.seconds:
                try:
                    return self._outcomes(operations, _MOMENT)
                except DatabaseUnavailable as error:
                    if not is_in_the_way(error):
                        raise
                if others_wait() and monotonic() >= begun + _STUCK_SECONDS:
                    break
            now = monotonic()
            self._stuck = {number: until for number, until in self._stuck.items() if until > now}
            self._stuck |= {number: now + self._pool.seconds for each in operations for number in each.numbers()}
            return self._outcomes(operations, None)
        except UponceError as error:
            return [error] * len(operations)

    def disconnect(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            discard(session)

    def _outcomes(self, operations: Sequence[Operation[Any]], milliseconds: int | None) -> Sequence[Any]:
        """Return for each operation its result or an exception. Wait for their locks for so long, or not at all."""
        try:
            return self._transact(operations, milliseconds)
        except NotCommitted as failure:
            cause = failure.__cause__
            if len(operations) > 1 and is_of_data(cause):
                return [self._outcome_apart(each, milliseconds) for each in operations]
            if isinstance(cause, RefusedAfterWrite):
                return [cause.__cause__]
            assert isinstance(cause, Exception)
            raise unavailable(cause) from cause

    def _outcome_apart(self, operation: Operation[Any], milliseconds: int | None) -> Any:
        try:
            return self._outcomes([operation], milliseconds)[0]
        except UponceError as error:
            return error

    def _transact(self, operations: Sequence[Operation[Any]], milliseconds: int | None) -> Sequence[Any]:
        session = self._connected()
        failed: Callable[[Exception], UponceError] = unavailable
        try:
            with session.connection.pipeline():
                outcomes = self._run_all(session, operations, milliseconds)
                if any(each is not TAKEN and not isinstance(each, Exception) for each in outcomes):
                    session.run("confirm")
                failed = outcome_unknown
                session.commit()
        except Exception as error:
            status = session.connection.info.transaction_status
            self.disconnect()
            if status is TransactionStatus.INERROR or (failed is unavailable and status is TransactionStatus.INTRANS):
                raise NotCommitted from error
            raise failed(error) from error
        return outcomes

    def _run_all(
        self, session: Session, operations: Sequence[Operation[Any]], milliseconds: int | None
    ) -> Sequence[Any]:
        """Run everything except the commit: one wave after the other, the operations of a wave in step."""
        numbers = list({number for each in operations for number in each.numbers()})
        if milliseconds is None:
            now, taken = session.begin_trying(numbers)
        else:
            now, taken = session.begin(Rules.SHARED, numbers, milliseconds=milliseconds), frozenset()
        outcomes = self._outcomes_of_taken(operations, numbers, taken)
        free = [place for place in range(len(operations)) if place not in outcomes]
        order = waves([operations[place] for place in free])
        for wave in range(max(order, default=-1) + 1):
            places = [place for place, number in zip(free, order, strict=True) if number == wave]
            found = run_in_step(session, [operations[place].begin(now) for place in places])
            outcomes.update(zip(places, found, strict=True))
        return [outcomes[place] for place in range(len(operations))]

    def _outcomes_of_taken(
        self, operations: Sequence[Operation[Any]], numbers: Sequence[int], taken: AbstractSet[int]
    ) -> dict[int, Any]:
        """Return the outcomes of the operations that need a lock that is taken, by their places."""
        for number in numbers if self._stuck else ():
            if number not in taken:
                self._stuck.pop(number, None)
        outcomes = {}
        for place, each in enumerate(operations) if taken else ():
            needed = taken & set(each.numbers())
            if needed:
                is_stuck = any(self._stuck.get(number, 0) > monotonic() for number in needed)
                outcomes[place] = failures.in_the_way() if is_stuck else TAKEN
        return outcomes

    def _connected(self) -> Session:
        if self._session is not None and not self._pool.is_usable(self._session):
            self.disconnect()
        if self._session is None:
            self._session = self._pool.borrow()
        self._session.limit()
        return self._session


def discard(session: Session) -> None:
    """End the connection, and what the server still does for it: at once, or after `_CANCEL_SECONDS` if it is silent.

    A server that waits for a lock or a synchronous standby does not notice that its client has gone. It would keep the
    connection and its locks, and the pool would open another one for each commit that was given up.
    """
    connection = session.connection
    if connection.info.transaction_status not in _ANSWERED:
        with suppress(Exception):  # whatever it is, the connection must end
            connection.cancel_safe(timeout=_CANCEL_SECONDS)
    connection.pgconn.finish()
