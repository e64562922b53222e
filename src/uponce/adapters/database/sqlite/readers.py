"""Reads: a few threads with connections that cannot write. They see what is durable, and nothing else."""

import sqlite3
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import TypeVar

from uponce.adapters.database.sqlite.connection import discard
from uponce.adapters.database.sqlite.failures import translated
from uponce.adapters.threads import Threads, ThreadsEnded
from uponce.core.errors import DatabaseUnavailable

T = TypeVar("T")

_THREADS = 2


class Readers:
    """Runs functions of a read-only connection off the event loop.

    `identify` tells which file lies where the database should: a connection to one that was moved or deleted
    would go on reading it.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection], identify: Callable[[], Hashable]) -> None:
        self._connect = connect
        self._identify = identify
        self._idle: list[tuple[Hashable, sqlite3.Connection]] = []
        self._threads = Threads(_THREADS, "uponce-database-reader")

    async def run(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """The result of the read; DatabaseUnavailable when there is none."""
        try:
            return await self._threads.run(lambda: self._run(read))
        except ThreadsEnded:
            raise DatabaseUnavailable("The server is closing its database. Send the same request again.") from None

    def close(self) -> None:
        self._threads.close()
        while self._idle:
            discard(self._idle.pop()[1])

    def _run(self, read: Callable[[sqlite3.Connection], T]) -> T:
        connection = None
        try:
            file, connection = self._borrow()
            result = read(connection)
        except Exception as error:
            if connection is not None:
                discard(connection)
            raise translated(error) from None
        self._idle.append((file, connection))
        return result

    def _borrow(self) -> tuple[Hashable, sqlite3.Connection]:
        file = self._identify()
        with suppress(IndexError):
            while True:
                opened_on, connection = self._idle.pop()
                if opened_on == file:
                    return file, connection
                discard(connection)
        connection = self._connect()
        connection.execute("PRAGMA query_only = ON")
        return file, connection
