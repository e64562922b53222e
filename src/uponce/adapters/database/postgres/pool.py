"""The connections of one process. A dead or slow one is thrown away; the next caller gets a new one.

psycopg's connections belong to no event loop between two statements, so the pool outlives one, as commands need it.
Not psycopg_pool: that one lives on a loop's tasks, and reconnects in the background with back-off, where here a
request that finds no connection is refused at once.
"""

import asyncio
import select
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from uponce.adapters.database.postgres.connection import Address, Connection, connect, lift_timeouts
from uponce.adapters.database.postgres.failures import closed, outcome_unknown, unavailable
from uponce.core.errors import DatabaseUnavailable, SettingRefused, UponceError

T = TypeVar("T")

Work = Callable[[Connection], Awaitable[T]]

BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"


class Pool:
    """At most `size` connections. Event loops may follow one another, and not run side by side.

    Each new one is shown to `admit` before its first use.
    """

    def __init__(self, address: Address, size: int, admit: Work[None]) -> None:
        self._address = address
        self._size = size
        self._admit = admit
        self._idle: list[Connection] = []
        self._open = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._free = asyncio.Semaphore(size)

    def open(self) -> None:
        self._open = True

    def close(self) -> None:
        """Later calls raise DatabaseUnavailable."""
        self._open = False
        while self._idle:
            discard(self._idle.pop())

    async def read(self, work: Work[T], *, patient: bool = False) -> T:
        """What one statement, or a few, find. `patient` ones may take as long as they take."""
        async with self.connection(patient=patient) as connection:
            try:
                if not patient:
                    return await work(connection)
                await connection.execute("BEGIN READ ONLY")
                await lift_timeouts(connection)
                result = await work(connection)
                await connection.execute("COMMIT")
            except Exception as error:
                raise unavailable(error) from error
            return result

    async def write(self, work: Work[T], *, first: str = "SELECT") -> T:
        """One transaction around the work, after the statement `first`. What it refuses with is rolled back.

        OutcomeUnknown when COMMIT did not answer.
        """
        refused: UponceError | None = None
        async with self.connection() as connection:
            failed = unavailable
            try:
                async with connection.pipeline():  # waits where the work reads an answer
                    await connection.execute(BEGIN)
                    await connection.execute(first)
                    try:
                        result = await work(connection)
                    except UponceError as refusal:
                        refused = refusal
                        await connection.execute("ROLLBACK")
                    else:
                        failed = outcome_unknown
                        await commit(connection)
            except Exception as error:
                if connection.info.transaction_status is TransactionStatus.INERROR:  # a statement did, before COMMIT
                    failed = unavailable
                raise failed(error) from error
        if refused is not None:
            raise refused
        return result

    @asynccontextmanager
    async def connection(self, *, patient: bool = False) -> AsyncIterator[Connection]:
        """Lend one; it goes back unless the work raised, or left something unfinished."""
        async with self._turn():
            connection = await self._borrow()
            deadline = None
            if not patient:
                deadline = asyncio.get_running_loop().call_later(2 * self._address.seconds, cut, connection)
            try:
                yield connection
            except BaseException:
                discard(connection)
                raise
            finally:
                if deadline is not None:
                    deadline.cancel()
            self._give_back(connection)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._free = loop, asyncio.Semaphore(self._size)
        free = self._free
        try:
            async with asyncio.timeout(self._address.seconds):
                await free.acquire()
        except TimeoutError:
            raise DatabaseUnavailable(
                "The server's database is too slow now. Nothing was stored. Send the same request again.",
                detail=f"all {self._size} connections (UPONCE_DATABASE_CONNECTIONS) were busy for "
                f"{self._address.seconds} seconds (UPONCE_DATABASE_SECONDS)",
            ) from None
        try:
            yield
        finally:
            free.release()

    async def _borrow(self) -> Connection:
        if not self._open:
            raise closed()
        while self._idle:
            connection = self._idle.pop()
            if not _is_dead(connection):
                return connection
            discard(connection)
        try:
            return await self._new()
        except SettingRefused as error:
            raise DatabaseUnavailable(
                "The server's database is not set up correctly. Nothing was stored. Report this to the operator.",
                detail=error.message,
                retry_after=60,
            ) from None
        except Exception as error:
            raise unavailable(error) from error

    async def _new(self) -> Connection:
        connection = await connect(self._address)
        try:
            await self._admit(connection)
        except BaseException:
            discard(connection)
            raise
        return connection

    def _give_back(self, connection: Connection) -> None:
        if self._open and not connection.closed:
            self._idle.append(connection)
        else:
            discard(connection)


async def commit(connection: Connection) -> None:
    """Return when the transaction is durable. Any error means that this is not known.

    A wait for a synchronous standby that is cancelled ends in success and a warning: it counts as an error here.
    """
    warnings: list[psycopg.errors.Diagnostic] = []
    connection.add_notice_handler(warnings.append)
    async with connection.pipeline():  # its end waits for the answers
        await lift_timeouts(connection)  # the wait for a synchronous standby is part of COMMIT
        done = await connection.execute("COMMIT")
    connection.remove_notice_handler(warnings.append)
    if warnings or done.statusmessage != "COMMIT":
        told = [warning.message_primary for warning in warnings]
        raise psycopg.OperationalError(f"COMMIT was answered with {done.statusmessage} and {told}")


def cut(connection: Connection) -> None:
    """End a connection under whoever waits for it: the wait fails at once, also when the server is silent for good."""
    with suppress(Exception):
        line = socket.socket(fileno=connection.fileno())
        try:
            line.shutdown(socket.SHUT_RDWR)
        finally:
            line.detach()


def discard(connection: Connection) -> None:
    """At once, and outside of any event loop."""
    connection.pgconn.finish()


def _is_dead(connection: Connection) -> bool:
    """An idle connection has nothing to read, unless the server has closed it."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))
