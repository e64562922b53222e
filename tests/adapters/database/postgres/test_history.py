"""When another PostgreSQL has taken over, it is fenced before it is used. The `failover` campaign does it for real."""

from collections.abc import Iterator

import psycopg
import pytest

from tests.contract.databases import KEY, SKEW, START, PlainBox, SteppedClock, attempt, draft, grant, run
from tests.postgres import Postgres, shared
from uponce.adapters.database.postgres import PostgresDatabase
from uponce.adapters.database.statements import load

STANDBY = "UPDATE history SET name = '7000/00000001'"
"""As a dump or a standby tells it, when this server here was promoted from it."""


@pytest.fixture
def url() -> str:
    return shared().fresh_schema()


def opened(url: str, fence_skew: int | None = SKEW) -> PostgresDatabase:
    database = PostgresDatabase(url, secrets=PlainBox(), clock=SteppedClock(), fence_skew=fence_skew)
    database.open()
    return database


@pytest.fixture
def taken_over(url: str) -> Iterator[str]:
    """A data set with a key and one used signature, that was last used in another history."""
    database = opened(url)
    run(database.add_key(KEY))
    assert run(attempt(database, grant("used"), draft(blob="a"))) == "ok"
    database.close()
    execute(url, STANDBY)
    yield url


def execute(url: str, *statements: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as admin:
        for statement in statements:
            cursor = admin.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def told(database: PostgresDatabase, name: str, at: int = START) -> str:
    return run(attempt(database, grant(name, at=at), draft(blob=name)))


def test_what_may_have_been_used_is_refused_and_what_is_signed_later_is_not(taken_over: str) -> None:
    database = opened(taken_over)
    assert told(database, "forgotten") == told(database, "newest", START + SKEW) == "stale_request"
    assert told(database, "fresh", START + SKEW + 1) == "ok"
    database.close()


def test_it_is_fenced_once_for_all_servers(taken_over: str, caplog: pytest.LogCaptureFixture) -> None:
    for server in (opened(taken_over), opened(taken_over), opened(taken_over, SKEW + 1)):
        assert told(server, "forgotten") == "stale_request"
        server.close()
    assert [key[0] for key in execute(taken_over, "SELECT watermark FROM api_keys")] == [START + SKEW]
    assert len(caplog.records) == 1
    assert "another PostgreSQL has taken over" in caplog.text


def test_who_trusts_the_standby_is_not_fenced_neither_now_nor_later(taken_over: str) -> None:
    for server in (opened(taken_over, None), opened(taken_over)):
        assert told(server, f"fresh-{server._fence_skew}") == "ok"
        server.close()


def test_a_first_start_and_a_restart_fence_nothing(url: str) -> None:
    for name in ("first", "again"):
        database = opened(url)
        if name == "first":
            run(database.add_key(KEY))
        assert told(database, name) == "ok"
        database.close()


def test_a_server_that_starts_in_the_same_history_waits_for_no_lock(url: str) -> None:
    """Not even for that of a hung one, which all commits share: it can read and deliver at once."""
    first = opened(url)
    run(first.add_key(KEY))
    first.close()
    with psycopg.connect(url) as hung:
        hung.execute(load("postgres")["share_rules"].text.encode())
        second = PostgresDatabase(url, secrets=PlainBox(), clock=SteppedClock(), seconds=1)
        second.open()
        assert run(second.find_key(KEY.api_key)) is not None
        second.close()


def test_what_is_frozen_can_be_read_and_is_fenced_when_it_thaws(taken_over: str) -> None:
    database = opened(taken_over, None)
    run(database.freeze())
    database.close()
    execute(taken_over, STANDBY)
    database = opened(taken_over)
    assert run(database.find_grant(grant("used").key)) is not None
    assert told(database, "a") == "database_unavailable"
    run(database.thaw(SKEW))
    assert told(database, "b") == "stale_request"
    database.close()


def test_a_common_role_may_ask_and_one_that_may_not_is_served_without() -> None:
    """As at a provider who does not tell: there only `uponce fence` helps."""
    own = Postgres()
    own.start()
    try:
        own.ask("CREATE ROLE common LOGIN")
        own.ask("CREATE DATABASE theirs OWNER common")
        theirs = own.url().replace("uponce@", "common@").replace("/postgres?", "/theirs?")
        database = opened(theirs)
        run(database.add_key(KEY))
        assert told(database, "first") == "ok"
        ((name,),) = execute(theirs, "SELECT name FROM history")
        assert str(name).endswith("/00000001")
        execute(own.url().replace("/postgres?", "/theirs?"), "REVOKE EXECUTE ON FUNCTION pg_control_system FROM PUBLIC")
        database.close()
        execute(theirs, STANDBY)
        database = opened(theirs)
        assert told(database, "second") == "ok"
        database.close()
    finally:
        own.stop()
