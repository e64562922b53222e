"""A ping writes, so that it finds a full disk. It disturbs no other server of the fleet."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.contract.databases import open_postgres, run
from tests.postgres import shared
from uponce.adapters.database.postgres import PostgresDatabase
from uponce.adapters.database.postgres.schema import version_of
from uponce.adapters.database.postgres.session import Session
from uponce.adapters.database.steps import Rules
from uponce.adapters.database.upkeep import touch


@pytest.fixture
def database() -> Iterator[PostgresDatabase]:
    database = open_postgres(shared().fresh_schema())
    yield database
    database.close()


def test_a_server_that_hangs_in_its_ping_makes_no_other_unready(database: PostgresDatabase) -> None:
    with psycopg.connect(database._address.url) as hung:
        hung.execute("UPDATE schema_version SET version = version")
        run(database.ping())


def test_every_table_has_a_primary_key(database: PostgresDatabase) -> None:
    """Beside a publication of all tables, PostgreSQL refuses to update one without: /readyz did, on every server."""
    with psycopg.connect(database._address.url) as connection:
        found = connection.execute(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition "
            "AND relnamespace = current_schema()::regnamespace "
            "AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = pg_class.oid AND indisprimary)"
        )
        assert found.fetchall() == []


def test_a_ping_writes(database: PostgresDatabase) -> None:
    def written() -> list[tuple[Any, ...]]:
        with psycopg.connect(database._address.url) as connection:
            return connection.execute("SELECT xmin FROM schema_version").fetchall()

    before = written()
    run(database.ping())
    assert written() != before


def test_a_ping_of_an_old_server_leaves_the_version_of_a_new_one(database: PostgresDatabase) -> None:
    """The new one migrates after the old one has read the version."""
    newer = 1000

    def ping(session: Session) -> None:
        with session.connection.pipeline():
            session.begin(Rules.NONE, [])
            steps = touch().begin(0.0)
            asked = session.ask(next(steps))
            with psycopg.connect(database._address.url) as connection:
                connection.execute("UPDATE schema_version SET version = %s", (newer,))
            session.ask(steps.send(asked))
            session.commit()

    run(database._pool.run(ping))
    with psycopg.connect(database._address.url) as connection:
        assert version_of(connection) == newer
