"""The reserve: a file beside the database, which gives up its room if SQLite cannot open the database on a full disk.

SQLite needs 32 KiB for its file of locks, and deletes that file with the last connection. Without the reserve, a server
that stops on a full disk cannot start again, although it could deliver.
"""

import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from uponce.adapters.database.sqlite.connection import Connection, code_of
from uponce.adapters.files import exists, has_no_room, write_whole

_BYTES = 1 << 20
_STEP = 64 << 10  # of many starts on a full disk, each takes a part
_NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)


def connected(connect: Callable[[], Connection], path: Path) -> Connection:
    """Return a new connection. While the disk has no room for it, shrink the reserve and try again."""
    while True:
        try:
            return connect()
        except sqlite3.Error as error:
            if code_of(error) not in _NO_ROOM or not _shrunk(_reserve(path)):
                raise


def fill(path: Path) -> None:
    """Make the reserve of this database whole, unless the disk has little room."""
    reserve = _reserve(path)
    with suppress(OSError):
        is_whole = exists(reserve) and reserve.stat().st_size == _BYTES
        if not is_whole and _room(reserve.parent) >= 4 * _BYTES:
            write_whole(reserve, [os.urandom(_BYTES)])  # some file systems store zeros in no room at all


def _shrunk(reserve: Path) -> bool:
    """Return whether the disk was full, and the reserve had room to give up."""
    with suppress(OSError):
        left = reserve.stat().st_size - _STEP
        if left >= 0 and (_room(reserve.parent) < _BYTES or has_no_room(reserve.parent)):
            os.truncate(reserve, left)
            return True
    return False


def _reserve(path: Path) -> Path:
    return path.resolve().with_name("uponce.reserve")


def _room(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize
