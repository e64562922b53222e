"""The schema and its versions: numbered SQL files, applied in order, forward only, all or nothing.

A database that is one version ahead is accepted: while servers are upgraded one after the other, old ones go on. So a
migration may add, and may drop only what the release before it has stopped using.
"""

from collections.abc import Sequence
from typing import Any

import psycopg

from uponce.adapters.database.statements import load, load_migrations
from uponce.core.errors import SettingRefused

_STATEMENTS = load("postgres")


def migrations() -> Sequence[str]:
    """The texts of the migrations; the first one makes version 1."""
    return load_migrations("postgres")


def migrate(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    """Bring the database to the newest version. Safe to race: others wait, and find it done.

    SettingRefused when it is more than one version ahead.
    """
    steps = migrations()
    if version_of(connection) not in (len(steps), len(steps) + 1):
        with connection.transaction():
            connection.execute(_STATEMENTS["lock_schema"].text)
            present = version_of(connection)
            _refuse_newer(present, len(steps))
            for step in steps[present:]:
                connection.execute(step)
            for name in ("forget_version", "record_version"):
                connection.execute(_STATEMENTS[name].filled({"version": len(steps)}))


def version_of(connection: psycopg.Connection[tuple[Any, ...]]) -> int:
    """0 for a database that is not ours yet."""
    if connection.execute(_STATEMENTS["find_schema"].text).fetchone() is None:
        return 0
    row = connection.execute(_STATEMENTS["schema_version"].text).fetchone()
    return (row and row[0]) or 0


def _refuse_newer(present: int, newest: int) -> None:
    if present > newest + 1:
        raise SettingRefused(
            f"The database has schema version {present}, but this release supports at most {newest + 1}. Start a newer "
            "release, or restore a backup from before the upgrade."
        )
