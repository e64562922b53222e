"""A deletion, and an upload in parts, wait for a transaction that publishes under their name, and come after it."""

import psycopg
import pytest

from tests.adapters.database.postgres.patience import wait_at_most
from tests.contract.databases import CALLER, KEY, PlainBox, SteppedClock, draft, grant, publish, run
from tests.contract.guarantees import removal
from tests.contract.test_database_series import complete
from tests.postgres import shared
from uponce.adapters.database.postgres import PostgresDatabase
from uponce.adapters.database.steps import of_name
from uponce.core.errors import DatabaseUnavailable

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


def test_a_series_is_not_published_under_a_name_that_somebody_publishes_under(url: str) -> None:
    database = PostgresDatabase(url, secrets=PlainBox(), clock=SteppedClock(), seconds=60)
    database.open()
    run(database.add_key(KEY))
    whole = run(complete(database, grant("s")))
    made = draft(blob=whole.blob_key)
    with psycopg.connect(url) as other:
        other.execute(LOCK, (of_name(NAME),))
        wait_at_most(database, 1)
        with pytest.raises(DatabaseUnavailable):
            run(database.commit_series(whole.id, made, CALLER))
    wait_at_most(database, 60)
    assert run(database.commit_series(whole.id, made, CALLER)).asset.name == NAME
    database.close()
