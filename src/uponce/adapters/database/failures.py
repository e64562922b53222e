"""The errors of a database that cannot do its work, the same for every engine."""

from uponce.core.errors import DatabaseUnavailable, InvalidParameter, OutcomeUnknown, SettingRefused, StorageFull


def no_space(detail: str) -> StorageFull:
    return StorageFull(
        "The server's database has no space left. Nothing was stored and no signature was spent. Send the same "
        "request again later.",
        detail=f"{detail}. Make room on the disk of the database.",
    )


def no_answer(detail: str) -> DatabaseUnavailable:
    """Return the error for work that certainly did not happen."""
    return DatabaseUnavailable(
        "The server's database does not answer now. Nothing was stored and no signature was spent. Send the same "
        "request again.",
        detail=detail,
    )


def no_thread(error: Exception) -> DatabaseUnavailable:
    return no_answer(f"{error}: see the limit of threads (ulimit -u, TasksMax, or the pids limit of a container)")


def in_the_way() -> DatabaseUnavailable:
    return no_answer("another transaction holds the lock of this name or signature for long: a server may hang")


def outcome_unknown(error: Exception) -> OutcomeUnknown:
    """Return the error for work whose COMMIT was sent, and got no answer."""
    return OutcomeUnknown(
        "The database did not confirm the commit, so the upload may be stored or not. Ask for the signature's "
        "status, or send the same request again: it is refused if the signature was spent.",
        detail=detail_of(error),
    )


def no_text() -> InvalidParameter:
    return InvalidParameter("A text holds a lone surrogate, which is not a character. Send valid UTF-8.")


def bad_cursor() -> InvalidParameter:
    return InvalidParameter("The cursor cannot be read. Send next_cursor as it was received, or none to begin.")


def closed() -> DatabaseUnavailable:
    return DatabaseUnavailable("The server is closing its database. Send the same request again.")


def refuse_newer(present: int, most: int) -> None:
    """Raise SettingRefused if the version of the schema is above `most`."""
    if present > most:
        raise SettingRefused(
            f"The database has schema version {present}, but this release supports at most {most}. Start a newer "
            "release, or restore a backup from before the upgrade."
        )


def refuse_older(present: int, newest: int) -> None:
    """Raise SettingRefused if a database, which is not new, has not the newest version of the schema."""
    if 0 < present < newest:
        raise SettingRefused(
            f"The database has schema version {present}, and this release needs {newest}. Nothing was changed. Make a "
            "backup with the release that runs now. Then run `uponce migrate`."
        )


def detail_of(error: Exception) -> str:
    """Return the detail for operators. The drivers name the code of a failure in different attributes."""
    code = getattr(error, "sqlite_errorname", None) or getattr(error, "sqlstate", None) or "no code"
    return f"{type(error).__name__}: {str(error).strip()} ({code})"
