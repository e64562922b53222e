"""The schema and its versions: numbered SQL files, applied in order, forward only, all or nothing."""

import sqlite3
from collections.abc import Iterator, Sequence

from uponce.adapters.database import upkeep
from uponce.adapters.database.sqlite.connection import Session
from uponce.adapters.database.statements import load_migrations
from uponce.adapters.database.steps import run
from uponce.core.errors import SettingRefused


def migrations() -> Sequence[str]:
    """The texts of the migrations; the first one makes version 1."""
    return load_migrations("sqlite")


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the file to the newest version; SettingRefused when it comes from a newer release. Safe to race."""
    steps = migrations()
    if version_of(connection) == len(steps):
        return
    session = Session(connection)
    connection.execute("BEGIN IMMEDIATE")
    try:
        present = version_of(connection)
        _refuse_foreign(connection)
        _refuse_newer(present, len(steps))
        frozen = run(session, upkeep.frozen().begin(0))
        run(session, upkeep.thaw_unfenced().begin(0))
        for statement in (s for step in steps[present:] for s in _statements(step)):
            connection.execute(statement)
        if frozen:
            run(session, upkeep.freeze().begin(0))
        connection.execute(f"PRAGMA user_version = {len(steps)}")
        connection.execute("COMMIT")
    finally:
        connection.rollback()


def version_of(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _refuse_foreign(connection: sqlite3.Connection) -> None:
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if names and "api_keys" not in names:
        raise SettingRefused(
            f"The database belongs to another program: it has the table {min(names)}, and no API keys. Point "
            "UPONCE_DATABASE to the database of uponce, or to a new file."
        )


def _refuse_newer(present: int, newest: int) -> None:
    if present > newest:
        raise SettingRefused(
            f"The database has schema version {present}, but this release supports at most {newest}. Start a newer "
            "release, or restore a backup from before the upgrade."
        )


def _statements(script: str) -> Iterator[str]:
    """One at a time: `executescript` would commit the transaction first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
