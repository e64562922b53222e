"""Moves committed pages from the log to the database file beside the commits, so that few commits wait for it.

SQLite does it inside of the commit that makes the log too long: at a thousand commits a second, one in fifty then takes
ten times as long. Here a thread does most of it, and such a commit finds little left to do (wal.c: PASSIVE waits for
nobody, and only a log that is moved as a whole begins again).
"""

import sqlite3
import threading
from collections.abc import Callable

from uponce.adapters.database.sqlite.connection import discard

EVERY = 150  # commits. Each changes some ten pages, and after 8,000 the commit does it itself (connection.py)


class Checkpointer:
    """A thread with a connection of its own. A failure is left to the next commit, which reports it."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._commits = 0
        self._due = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="uponce-checkpointer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def note_commit(self) -> None:
        """Call it after each commit of this process, in the thread that commits."""
        self._commits += 1
        if self._commits % EVERY == 0:
            self._due.set()

    def close(self) -> None:
        self._closed = True
        self._due.set()
        if self._thread.is_alive():
            self._thread.join()

    def _serve(self) -> None:
        connection: sqlite3.Connection | None = None
        while self._due.wait() and not self._closed:
            self._due.clear()
            try:
                connection = connection or self._connect()
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            except sqlite3.Error:
                if connection is not None:
                    discard(connection)
                connection = None
        if connection is not None:
            discard(connection)
