"""Reads: a few threads with connections that cannot write. They see what is durable, and nothing else."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from uponce.adapters.database.connection import discard
from uponce.adapters.database.failures import translated
from uponce.core.errors import DatabaseUnavailable

T = TypeVar("T")

_THREADS = 2


class Readers:
    """Runs functions of a read-only connection off the event loop."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._idle: list[sqlite3.Connection] = []
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="uponce-database-reader")

    async def run(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """The result of the read; DatabaseUnavailable when there is none."""
        try:
            running = self._threads.submit(self._run, read)
        except RuntimeError:
            raise DatabaseUnavailable("The database is closed. Send the same request again.", retry_after=1) from None
        return await asyncio.wrap_future(running)

    def close(self) -> None:
        self._threads.shutdown()
        while self._idle:
            discard(self._idle.pop())

    def _run(self, read: Callable[[sqlite3.Connection], T]) -> T:
        connection = None
        try:
            connection = self._borrow()
            result = read(connection)
        except Exception as error:
            if connection is not None:
                discard(connection)
            raise translated(error) from None
        self._idle.append(connection)
        return result

    def _borrow(self) -> sqlite3.Connection:
        try:
            return self._idle.pop()
        except IndexError:
            connection = self._connect()
            connection.execute("PRAGMA query_only = ON")
            return connection
