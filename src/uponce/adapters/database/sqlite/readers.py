"""Reads: a few threads and the event loop, with connections that cannot write. They see only what is durable."""

import sqlite3
import threading
from collections.abc import Callable, Hashable
from functools import partial
from time import monotonic
from typing import TypeVar

from uponce.adapters.database import catalog
from uponce.adapters.database.failures import closed, no_thread
from uponce.adapters.database.sqlite.connection import Connection, HeldConnection, translated
from uponce.adapters.database.steps import run
from uponce.adapters.threads import NoThread, Threads, ThreadsEnded
from uponce.core.errors import DatabaseUnavailable
from uponce.core.values import Asset, AssetName

T = TypeVar("T")

_READ_ONLY = "PRAGMA query_only = ON"
_THREADS = 2
_SLOW_SECONDS = 0.005
_REST_SECONDS = 1.0


class Readers:
    """Runs functions of a read-only connection off the event loop. `hold` makes a HeldConnection with more settings."""

    def __init__(self, hold: Callable[..., HeldConnection]) -> None:
        self._new = partial(hold, _READ_ONLY)
        self._idle: list[HeldConnection] = []
        self._threads = Threads(_THREADS, "uponce-database-reader")

    async def run(self, read: Callable[[Connection], T]) -> T:
        """Return the result of the read. Raise DatabaseUnavailable if it fails."""
        try:
            return await self._threads.run(lambda: self._run(read))
        except ThreadsEnded:
            raise closed() from None
        except NoThread as error:
            raise no_thread(error) from error

    def close(self) -> None:
        self._threads.close()
        while self._idle:
            self._idle.pop().drop()

    def _run(self, read: Callable[[Connection], T]) -> T:
        try:
            held = self._idle.pop()
        except IndexError:
            held = self._new()
        try:
            if held.is_moved():
                held.drop()
            result = read(held.connected())
        except Exception as error:
            held.drop()
            raise translated(error) from None
        self._idle.append(held)
        return result


class Glances:
    """The Glance port: one more such connection for the event loop itself. It waits for no lock.

    A look-up is a few reads of pages that the system has in memory. A look-up that takes longer than 5 ms has waited
    for the disk. Then only threads look for the next second, so a slow disk costs the loop little time.
    """

    def __init__(self, hold: Callable[..., HeldConnection]) -> None:
        self._held = hold(_READ_ONLY, "PRAGMA busy_timeout = 0")
        self._gate = threading.Lock()
        self._rests_until = 0.0
        self._closed = False

    def prepare(self) -> None:
        """Open the connection unless it is open. It may wait, so call it in a thread."""
        with self._gate:
            if not self._closed:
                self._held.connected()

    def close(self) -> None:
        with self._gate:
            self._closed = True
            self._held.drop()

    def version(self) -> Hashable:
        """Return the connection, and the number that SQLite increases when another connection commits to the file."""
        connection = self._ready()
        try:
            return connection, connection.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error as error:
            self._held.drop()
            raise translated(error) from None

    def find_asset(self, name: AssetName) -> Asset | None:
        connection, begun = self._ready(), monotonic()
        try:
            return run(connection, catalog.find(name).begin(0))
        except Exception as error:
            if isinstance(error, sqlite3.Error):
                self._held.drop()
            raise translated(error) from None
        finally:
            if (now := monotonic()) - begun > _SLOW_SECONDS:
                self._rests_until = now + _REST_SECONDS

    def _ready(self) -> Connection:
        connection = self._held.connection
        if connection is None or monotonic() < self._rests_until:
            raise _not_now()
        if self._held.is_moved():
            self._held.drop()
            raise _not_now()
        return connection


def _not_now() -> DatabaseUnavailable:
    return DatabaseUnavailable("The server's database does not answer at once. Send the same request again.")
