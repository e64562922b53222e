"""Reads: a few threads and the event loop, with connections that cannot write. They see only what is durable."""

import sqlite3
import threading
from collections.abc import Callable, Hashable
from contextlib import suppress
from time import monotonic
from typing import TypeVar

from uponce.adapters.database import catalog
from uponce.adapters.database.failures import closed
from uponce.adapters.database.sqlite.connection import Session, discard, translated
from uponce.adapters.database.steps import run
from uponce.adapters.threads import Threads, ThreadsEnded
from uponce.core.errors import DatabaseUnavailable
from uponce.core.values import Asset, AssetName

T = TypeVar("T")

_THREADS = 2
_SLOW_SECONDS = 0.005
_REST_SECONDS = 1.0


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
            raise closed() from None

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
        return file, _reading(self._connect)


class Glances:
    """The Glance port: one more such connection, which the event loop itself uses, and which waits for no lock.

    A look-up is a few reads of pages that the system has in memory. One that takes longer than 5 ms has waited for the
    disk: then only threads look for the next second, so a slow disk costs the loop little of its time.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection], identify: Callable[[], Hashable]) -> None:
        self._connect = connect
        self._identify = identify
        self._gate = threading.Lock()
        self._held: tuple[Hashable, sqlite3.Connection] | None = None
        self._rests_until = 0.0
        self._closed = False

    def prepare(self) -> None:
        """Open the connection unless it is open. It may wait, so call it in a thread."""
        with self._gate:
            if self._held is None and not self._closed:
                file, connection = self._identify(), _reading(self._connect)
                connection.execute("PRAGMA busy_timeout = 0")
                self._held = file, connection

    def close(self) -> None:
        with self._gate:
            self._closed = True
            self._drop()

    def version(self) -> Hashable:
        """The file, and the number that SQLite counts up when another connection has committed to it."""
        connection = self._ready()
        try:
            return self._held, connection.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error as error:
            self._drop()
            raise translated(error) from None

    def find_asset(self, name: AssetName) -> Asset | None:
        connection, begun = self._ready(), monotonic()
        try:
            return run(Session(connection), catalog.find(name).begin(0))
        except Exception as error:
            if isinstance(error, sqlite3.Error):
                self._drop()
            raise translated(error) from None
        finally:
            if (now := monotonic()) - begun > _SLOW_SECONDS:
                self._rests_until = now + _REST_SECONDS

    def _ready(self) -> sqlite3.Connection:
        if self._held is None or monotonic() < self._rests_until:
            raise _not_now()
        file, connection = self._held
        if self._identify() != file:
            self._drop()
            raise _not_now()
        return connection

    def _drop(self) -> None:
        if self._held is not None:
            discard(self._held[1])
        self._held = None


def _not_now() -> DatabaseUnavailable:
    return DatabaseUnavailable("The server's database does not answer at once. Send the same request again.")


def _reading(connect: Callable[[], sqlite3.Connection]) -> sqlite3.Connection:
    connection = connect()
    connection.execute("PRAGMA query_only = ON")
    return connection
