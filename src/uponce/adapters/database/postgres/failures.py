"""What went wrong in PostgreSQL → errors of core/errors.py: the only place that reads the driver's exceptions."""

import psycopg

from uponce.core.errors import DatabaseUnavailable, InvalidParameter, OutcomeUnknown, StorageFull, UponceError


def unavailable(error: Exception) -> UponceError:
    """For work that certainly did not happen."""
    if isinstance(error, UponceError):
        return error
    if isinstance(error, UnicodeError):
        return InvalidParameter("A text holds a lone surrogate, which is not a character. Send valid UTF-8.")
    if isinstance(error, psycopg.errors.DiskFull):
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
    """For work whose COMMIT was sent and not answered."""
    return OutcomeUnknown(
        "The database did not confirm the commit, so the upload may be stored or not. Ask for the signature's "
        "status, or send the same request again: it is refused if the signature was spent.",
        detail=_detail(error),
    )


def is_in_the_way(error: UponceError) -> bool:
    """Whether a lock that somebody else holds is what the work failed for."""
    return isinstance(error.__cause__, psycopg.errors.LockNotAvailable)


def closed() -> DatabaseUnavailable:
    return DatabaseUnavailable("The server is closing its database. Send the same request again.")


def _detail(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip()} ({getattr(error, 'sqlstate', None) or 'no code'})"
