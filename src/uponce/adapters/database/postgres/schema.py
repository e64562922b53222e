"""The schema and its versions: numbered SQL files, applied in order, forward only, all or nothing.

A database that is one version ahead is accepted: while servers are upgraded one after the other, old ones go on. So a
migration may add, and may drop only what the release before it has stopped using. Only 0007 does not: the release
before it computes other keys and must not spend beside the new one, so there its spends fail.
"""

from collections.abc import Sequence
from importlib import resources
from typing import Any

import psycopg

from uponce.core.errors import SettingRefused

_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('uponce schema', 0))"


_TABLE = "schema_version"


def migrations() -> Sequence[str]:
    """The texts of migrations/*.sql; the first one makes version 1."""
    folder = resources.files(__package__) / "migrations"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return [file.read_text() for file in files]


def migrate(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    """Bring the database to the newest version. Safe to race: others wait, and find it done.

    SettingRefused when it is more than one version ahead.
    """
    steps = migrations()
    if version_of(connection) not in (len(steps), len(steps) + 1):
        with connection.transaction():
            connection.execute(_LOCK)
            present = version_of(connection)
            _refuse_newer(present, len(steps))
            for step in steps[present:]:
                connection.execute(step)
            connection.execute("CREATE TABLE IF NOT EXISTS schema_version (version int NOT NULL)")
            connection.execute("DELETE FROM schema_version WHERE version < %s", (len(steps),))
            connection.execute(
                "INSERT INTO schema_version SELECT %s WHERE NOT EXISTS (SELECT FROM schema_version)", (len(steps),)
            )


def version_of(connection: psycopg.Connection[tuple[Any, ...]]) -> int:
    """0 for a database that is not ours yet."""
    # Not to_regclass: it answers from a cache that waiting for a lock does not refresh.
    there = connection.execute(
        "SELECT FROM pg_tables WHERE schemaname = current_schema() AND tablename = %s", (_TABLE,)
    )
    if there.fetchone() is None:
        return 0
    row = connection.execute("SELECT max(version) FROM schema_version").fetchone()
    return (row and row[0]) or 0


def _refuse_newer(present: int, newest: int) -> None:
    if present > newest + 1:
        raise SettingRefused(
            f"The database has schema version {present}, but this release supports at most {newest + 1}. Start a newer "
            "release, or restore a backup from before the upgrade."
        )
