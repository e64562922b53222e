"""The reserve: files beside the database, which give up their room if SQLite cannot open it on a full disk.

SQLite needs two files beside the database, one of them 32 KiB long, and deletes them with the last connection. Without
the reserve, a server that stops on a disk without room or inodes cannot start again, although it could deliver.
"""

import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from uponce.adapters.database.sqlite.connection import Connection, code_of
from uponce.adapters.files import exists, has_no_room, make_file, make_one_folder
from uponce.adapters.system import closing_file, write_all

_FILES, _BYTES = 16, 64 << 10  # of many starts on a full disk, each takes some files
NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)


def connected(connect: Callable[[], Connection], path: Path) -> Connection:
    """Return a new connection. While the disk has no room for it, delete a file of the reserve and try again."""
    while True:
        try:
            return connect()
        except sqlite3.Error as error:
            if code_of(error) not in NO_ROOM or not _shrunk(_reserve(path)):
                raise


def fill(path: Path) -> None:
    """Make the reserve of this database whole, unless the disk has little room."""
    reserve = _reserve(path)
    with suppress(OSError):
        files = [reserve / str(number) for number in range(_FILES)]
        missing = [file for file in files if not exists(file) or file.stat().st_size < _BYTES]
        if not missing or not _has_plenty(reserve.parent):
            return
        make_one_folder(reserve)
        for file in missing:
            file.unlink(missing_ok=True)
            with closing_file(make_file(file)) as descriptor:
                write_all(descriptor, [os.urandom(_BYTES)])  # some file systems store zeros in no room at all


def _shrunk(reserve: Path) -> bool:
    """Return whether the disk was full, and the reserve had a file to give up."""
    with suppress(OSError):
        file = next(reserve.iterdir(), None)
        if file and (_room(reserve.parent) < _FILES * _BYTES or has_no_room(reserve.parent)):
            file.unlink()
            return True
    return False


def _reserve(path: Path) -> Path:
    return path.resolve().with_name("uponce.reserve")


def _has_plenty(folder: Path) -> bool:
    """Return whether the reserve takes a quarter at most of the room and of the inodes that are left there."""
    disk = os.statvfs(folder)
    return _room(folder) >= 4 * _FILES * _BYTES and (not disk.f_files or disk.f_favail >= 4 * _FILES)


def _room(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize
