"""What went wrong in SQLite → errors of core/errors.py: the only place that reads a driver's exception."""

import sqlite3

from uponce.core.errors import DatabaseUnavailable, InvalidParameter, OutcomeUnknown, StorageFull, UponceError

_PRIMARY_CODE = 0xFF


def unavailable(error: Exception) -> UponceError:
    """For work that certainly did not happen."""
    if isinstance(error, UponceError):
        return error
    if _is_full(error):
        return StorageFull(
            "The server's database has no space left. Nothing was stored and no signature was spent. Send the same "
            "request again later.",
            detail=_detail(error),
        )
    return DatabaseUnavailable(
        "The server's database does not answer now. Nothing was stored and no signature was spent. Send the same "
        "request again.",
        detail=_detail(error),
    )


def outcome_unknown(error: Exception) -> UponceError:
    """For work whose COMMIT did not answer: the log may hold it whole, and recovery would then bring it back.

    A full disk is certain: SQLite says so when a frame of the log was not written whole (unixWrite in os_unix.c), the
    commit's frame comes last, and without it recovery takes nothing of the transaction.
    """
    if _is_full(error):
        return unavailable(error)
    return OutcomeUnknown(
        "The database did not confirm the commit, so the upload may be stored or not. Ask for the signature's "
        "status, or send the same request again: it is refused if the signature was spent.",
        detail=_detail(error),
    )


def translated(error: Exception) -> Exception:
    """What a caller gets for an exception of its own work. Domain errors pass through."""
    if isinstance(error, sqlite3.Error):
        return unavailable(error)
    if isinstance(error, UnicodeError):
        return InvalidParameter("A text holds a lone surrogate, which is not a character. Send valid UTF-8.")
    return error


def _is_full(error: Exception) -> bool:
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & _PRIMARY_CODE == sqlite3.SQLITE_FULL


def _detail(error: Exception) -> str:
    return f"{type(error).__name__}: {error} ({getattr(error, 'sqlite_errorname', 'no code')})"
