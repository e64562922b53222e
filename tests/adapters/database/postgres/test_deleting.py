"""A deletion waits for whoever puts an asset under its name, and comes after it."""

import psycopg
import pytest

from tests.adapters.database.postgres.patience import wait_at_most
from tests.contract.databases import KEY, PlainBox, SteppedClock, draft, grant, publish, run
from tests.contract.guarantees import removal
from tests.postgres import shared
from uponce.adapters.database.postgres import PostgresDatabase
from uponce.adapters.database.steps import of_name

NAME = draft(blob="x").asset.name
LOCK = "SELECT pg_advisory_xact_lock(%s)"


@pytest.fixture
def url() -> str:
    return shared().fresh_schema()


def test_a_name_that_somebody_publishes_under_is_not_deleted_meanwhile(url: str) -> None:
    database = PostgresDatabase(url, secrets=PlainBox(), clock=SteppedClock(), seconds=60)
    database.open()
    run(database.add_key(KEY))
    run(publish(database, "made"))
    with psycopg.connect(url) as other:
        other.execute(LOCK, (of_name(NAME),))
        wait_at_most(database, 1)
        assert run(removal(database, grant("d"), NAME)) == "database_unavailable"
    wait_at_most(database, 60)
    assert run(removal(database, grant("d"), NAME)) == "ok"
    database.close()
