"""A frozen database refuses every write by triggers, whichever process makes it and however long ago it connected.

Functions run inside their caller's transaction.
"""

import sqlite3
from collections.abc import Iterator

from uponce.core.errors import DatabaseUnavailable

FROZEN = "The database is frozen: it is a backup, or was moved away from."

_TABLES = "api_keys grants assets condemned audit replies series series_spans series_grants".split()
_EVENTS = "INSERT UPDATE DELETE".split()
_IS_FROZEN = "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND name = 'frozen_grants_insert'"


def freeze(connection: sqlite3.Connection) -> None:
    for trigger, event, table in _triggers():
        connection.execute(
            f"CREATE TRIGGER IF NOT EXISTS {trigger} BEFORE {event} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{FROZEN}'); END"
        )


def thaw(connection: sqlite3.Connection) -> None:
    for trigger, _, _ in _triggers():
        connection.execute(f"DROP TRIGGER IF EXISTS {trigger}")


def is_frozen(connection: sqlite3.Connection) -> bool:
    (count,) = connection.execute(_IS_FROZEN).fetchone()
    return bool(count)


def check(connection: sqlite3.Connection) -> None:
    """DatabaseUnavailable when it is frozen."""
    if is_frozen(connection):
        raise DatabaseUnavailable(FROZEN)


def _triggers() -> Iterator[tuple[str, str, str]]:
    return ((f"frozen_{table}_{event.lower()}", event, table) for table in _TABLES for event in _EVENTS)
