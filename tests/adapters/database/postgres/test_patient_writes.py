"""What ends many series has no time limit. Their parts may be millions of rows."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.contract.databases import KEY, SKEW, open_postgres, run
from tests.postgres import shared
from uponce.adapters.database.postgres import PostgresDatabase

LIMITED = """
CREATE FUNCTION limited() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF current_setting('statement_timeout') <> '0' OR coalesce(current_setting('transaction_timeout', true), '0') <> '0'
  THEN RAISE EXCEPTION 'limited'; END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER limited AFTER DELETE ON series FOR EACH STATEMENT EXECUTE FUNCTION limited()
"""
WRITES: dict[str, Callable[[PostgresDatabase], Any]] = {
    "fence": lambda database: database.fence(SKEW),
    "widen_fence": lambda database: database.widen_fence(2 * SKEW),
    "thaw": lambda database: database.thaw(SKEW),
    "rotate_key": lambda database: database.rotate_key(KEY.api_key, "newer", 0),
}


@pytest.fixture
def url() -> Iterator[str]:
    """A data set that was fenced, and that refuses to end series within a time limit."""
    url = shared().fresh_schema()
    database = open_postgres(url)
    run(database.add_key(KEY))
    run(database.fence(0))
    database.close()
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(LIMITED)
    yield url


def deadlines(database: PostgresDatabase) -> list[float | None]:
    return [session.connection.deadline for session in database._pool._idle]


@pytest.mark.parametrize("name", WRITES)
def test_neither_server_nor_client_gives_up(url: str, name: str) -> None:
    database = open_postgres(url)
    run(WRITES[name](database))
    assert deadlines(database) == [None]
    run(database.find_key(KEY.api_key))
    assert None not in deadlines(database)
    database.close()


def test_a_server_fences_after_a_failover_however_long_it_takes(url: str) -> None:
    """With a limit, no server would ever be admitted."""
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("UPDATE history SET name = '7000/00000001/0123456789abcdef'")
    database = open_postgres(url)
    assert run(database.find_key(KEY.api_key)) is not None
    database.close()
