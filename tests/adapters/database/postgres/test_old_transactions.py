"""PostgreSQL warns with each transaction once its old ones must be vacuumed. It still works then."""

import asyncio
from collections.abc import Iterator

import psycopg
import pytest

from tests.adapters.database.postgres.test_outcomes import opened
from tests.contract.databases import CALLER, attempt, draft, grant, run
from tests.postgres import Postgres
from uponce.adapters.database.postgres import PostgresDatabase

pytestmark = pytest.mark.proof


@pytest.fixture
def old() -> Iterator[Postgres]:
    server = Postgres()
    try:
        server.start(autovacuum="off")
        server.grow_old()
        server.start(autovacuum="off")
        yield server
    finally:
        server.stop()


def warnings_of(server: Postgres) -> list[str | None]:
    """What it says of a transaction that writes."""
    told: list[str | None] = []
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.add_notice_handler(lambda warning: told.append(warning.message_primary))
        connection.execute("SELECT pg_current_xact_id()")
    return told


async def work(database: PostgresDatabase) -> None:
    for count in range(8):
        await database.ping()
        await database.record_refusal(grant(f"r{count}"), "signature_used", CALLER)
        await database.condemn([f"{count:032x}"])


def test_such_a_warning_is_no_failure_of_a_commit(old: Postgres) -> None:
    assert any("must be vacuumed" in (each or "") for each in warnings_of(old))
    with opened(old, 60) as database:
        asyncio.run(work(database))
        assert run(attempt(database, grant("a"), draft(blob="a"))) == "ok"
