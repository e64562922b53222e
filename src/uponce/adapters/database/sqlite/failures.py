"""What went wrong in SQLite → errors of core/errors.py: the only place that reads a driver's exception."""

import errno
import sqlite3
from pathlib import Path

from uponce.adapters.database import failures
from uponce.core.errors import SettingRefused, UponceError

_PRIMARY_CODE = 0xFF


def unavailable(error: Exception) -> UponceError:
    """For work that certainly did not happen."""
    if isinstance(error, UponceError):
        return error
    detail = failures.detail_of(error)
    return failures.no_space(detail) if _is_full(error) else failures.no_answer(detail)


def outcome_unknown(error: Exception) -> UponceError:
    """For work whose COMMIT did not answer: the log may hold it whole, and recovery would then bring it back.

    A full disk is certain: SQLite says so when a frame of the log was not written whole (unixWrite in os_unix.c), the
    commit's frame comes last, and without it recovery takes nothing of the transaction.
    """
    if _is_full(error):
        return unavailable(error)
    return failures.outcome_unknown(error)


_CURES = {
    sqlite3.SQLITE_READONLY: "Let the user of the server write this file and its folder, or mount the disk read-write",
    sqlite3.SQLITE_CANTOPEN: "Let the user of the server read and write this file and its folder, and free disk space",
    sqlite3.SQLITE_PERM: "Let the user of the server read and write this file and its folder",
    sqlite3.SQLITE_NOTADB: "Point UPONCE_DATABASE to the database of uponce, or to a new file",
    sqlite3.SQLITE_CORRUPT: "Stop every server on this file and restore it from a backup",
    sqlite3.SQLITE_FULL: "Free disk space",
    sqlite3.SQLITE_IOERR: "Check the disk and its free space",
    sqlite3.SQLITE_BUSY: "Stop the other program that holds the file",
}
_OF_SYSTEM = {
    errno.EROFS: sqlite3.SQLITE_READONLY,
    errno.EACCES: sqlite3.SQLITE_PERM,
    errno.EPERM: sqlite3.SQLITE_PERM,
    errno.ENOSPC: sqlite3.SQLITE_FULL,
    errno.EIO: sqlite3.SQLITE_IOERR,
}
_LATER = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY)


def cannot_open(path: Path, error: Exception) -> SettingRefused:
    """Name the cause and the cure, for a start-up that failed."""
    number = error.errno if isinstance(error, OSError) else None
    cure = _CURES.get(
        _OF_SYSTEM.get(number or 0, _code(error)),
        "Point UPONCE_DATABASE to a file in a folder that the server may write",
    )
    return SettingRefused(f"The database {path} cannot be opened: {error}. {cure}.")


def is_for_later(error: sqlite3.Error) -> bool:
    """Whether a server may start with this failure of a write: a full disk refuses uploads, and may get room."""
    return _code(error) in _LATER


def translated(error: Exception) -> Exception:
    """What a caller gets for an exception of its own work. Domain errors pass through."""
    if isinstance(error, sqlite3.Error):
        return unavailable(error)
    if isinstance(error, UnicodeError):
        return failures.no_text()
    return error


def _is_full(error: Exception) -> bool:
    return _code(error) == sqlite3.SQLITE_FULL


def _code(error: Exception) -> int:
    """Return SQLite's primary result code, 0 for another error."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return 0 if code is None else code & _PRIMARY_CODE
