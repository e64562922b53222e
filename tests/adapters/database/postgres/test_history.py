"""When another PostgreSQL has taken over, it is fenced before it is used. The `failover` campaign does it for real."""

from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pytest

from tests.contract.databases import KEY, OTHER, SKEW, START, PlainBox, SteppedClock, attempt, draft, grant, run
from tests.postgres import Postgres, shared
from uponce.adapters.database.postgres import PostgresDatabase
from uponce.adapters.database.postgres.history import Histories
from uponce.adapters.database.postgres.pool import Engine, discard
from uponce.adapters.database.postgres.session import Session
from uponce.adapters.database.statements import load
from uponce.adapters.database.steps import Ask
from uponce.core.errors import DatabaseUnavailable, SettingRefused
from uponce.core.lineage import heir

pytestmark = pytest.mark.proof

STANDBY = "UPDATE history SET name = '7000/00000001/0123456789abcdef'"
"""As a dump or a standby tells it, when this server here was promoted from it."""


@pytest.fixture
def url() -> str:
    return shared().fresh_schema()


def opened(url: str, fence_skew: int | None = SKEW) -> PostgresDatabase:
    database = PostgresDatabase(url, secrets=PlainBox(), clock=SteppedClock(), seconds=60, fence_skew=fence_skew)
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


def test_a_key_that_the_standby_lacks_is_fenced_when_it_comes_back(taken_over: str) -> None:
    database = opened(taken_over)
    run(database.add_key(OTHER))
    assert [key.watermark for key in run(database.list_keys())] == [START + SKEW] * 2
    database.close()


class Told:
    """A session that gets these answers, one after the other."""

    history = None

    def __init__(self, *answers: list[list[dict[str, str]]]) -> None:
        self._answers = iter(answers)

    def ask(self, _: Sequence[Ask]) -> list[list[dict[str, str]]]:
        return next(self._answers)


def test_a_history_that_another_thread_enters_meanwhile_is_no_former_primary() -> None:
    histories = Histories(SKEW)
    entered = f"7/2/{heir('b', 'a')}"
    histories.admit(Told([[{"name": "7/1"}], [{"name": "7/1/a"}]]))  # type: ignore[arg-type]
    histories.admit(Told([[{"name": "7/2"}], [{"name": entered}]]))  # type: ignore[arg-type]
    late: Any = Told([[{"name": "7/2"}], [{"name": "7/1/a"}]], [[{"name": entered}]])
    histories.admit(late)
    assert late.history == heir("b", "a")
    former: Any = Told([[{"name": "7/1"}], [{"name": "7/1/a"}]], [[{"name": "7/1/a"}]])
    with pytest.raises(SettingRefused):
        histories.admit(former)


def test_it_is_fenced_once_for_all_servers(taken_over: str, caplog: pytest.LogCaptureFixture) -> None:
    for server in (opened(taken_over), opened(taken_over), opened(taken_over, SKEW + 1)):
        assert told(server, "forgotten") == "stale_request"
        server.close()
    assert [key[0] for key in execute(taken_over, "SELECT watermark FROM api_keys")] == [START + SKEW]
    assert len(caplog.records) == 1
    assert "another PostgreSQL has taken over" in caplog.text


def test_who_trusts_the_standby_is_not_fenced_neither_now_nor_later(taken_over: str) -> None:
    for skew in (None, SKEW):
        server = opened(taken_over, skew)
        assert told(server, f"fresh-{skew}") == "ok"
        server.close()


def test_a_first_start_and_a_restart_fence_nothing(url: str) -> None:
    for name in ("first", "again"):
        database = opened(url)
        if name == "first":
            run(database.add_key(KEY))
        assert told(database, name) == "ok"
        database.close()


@pytest.mark.parametrize("third", ["the former primary", "another standby of the former primary"])
def test_servers_refuse_a_postgresql_that_lacks_the_first_failover(
    url: str, monkeypatch: pytest.MonkeyPatch, third: str
) -> None:
    """Timelines do not show it: a former primary keeps its own, and two standbys of it begin equal ones."""
    clock = SteppedClock()
    servers = [PostgresDatabase(url, secrets=PlainBox(), clock=clock, seconds=60, fence_skew=0) for _ in range(2)]
    for server in servers:
        server.open()
    run(servers[0].add_key(KEY))
    assert [told(server, f"first-{number}") for number, server in enumerate(servers)] == ["ok", "ok"]
    ((first,),) = execute(url, "SELECT name FROM history")

    promote(url, monkeypatch, "7000/00000002")
    clock.time = START + 10
    assert [told(server, f"lost-{number}") for number, server in enumerate(servers)] == ["stale_request"] * 2
    clock.time = START + 20
    used = [told(server, f"used-{number}", START + 15) for number, server in enumerate(servers)]
    assert used == ["ok", "ok"]
    ((second,),) = execute(url, "SELECT name FROM history")

    execute(url, f"UPDATE history SET name = '{first}'")
    own = "/".join(str(first).split("/")[:2])
    promote(url, monkeypatch, own if third == "the former primary" else "7000/00000002")
    for server in servers:
        with pytest.raises(DatabaseUnavailable) as refused:
            run(server.find_key(KEY.api_key))
        assert "Another PostgreSQL has replaced the one that answers" in refused.value.detail
        assert told(server, "used-0", START + 15) == "database_unavailable"

    execute(url, f"UPDATE history SET name = '{second}'")
    promote(url, monkeypatch, "7000/00000002")
    assert [told(server, f"fresh-{number}", START + 21) for number, server in enumerate(servers)] == ["ok", "ok"]
    for server in servers:
        server.close()


def test_no_connection_to_a_former_primary_stays_in_use(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such connections live on if only the network failed."""
    server = opened(url)
    run(server.add_key(KEY))
    assert told(server, "first") == "ok"
    run(server.find_key(KEY.api_key))
    engine = server._committer._engine
    assert isinstance(engine, Engine)
    assert engine._session is not None
    (idle,), committing = server._pool._idle, engine._session
    show(monkeypatch, "7000/00000002")
    discard(server._pool.new())
    assert told(server, "second", START + SKEW + 1) == "ok"
    run(server.find_key(KEY.api_key))
    assert idle.connection.closed
    assert committing.connection.closed
    server.close()


def test_another_server_may_notice_a_failover_first(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = opened(url), opened(url)
    run(first.add_key(KEY))
    assert [told(server, f"{number}") for number, server in enumerate((first, second))] == ["ok", "ok"]
    for timeline in range(2, 5):
        promote(url, monkeypatch, f"7000/0000000{timeline}")
        run(first.find_key(KEY.api_key))
    assert told(second, "fresh", START + SKEW + 1) == "ok"
    for server in (first, second):
        server.close()


def promote(url: str, monkeypatch: pytest.MonkeyPatch, seen: str) -> None:
    """End all connections, and show this history to the next ones."""
    show(monkeypatch, seen)
    others = "datname = current_database() AND pid <> pg_backend_pid()"
    execute(url, f"SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity WHERE {others}")


def show(monkeypatch: pytest.MonkeyPatch, seen: str) -> None:
    ask = Session.ask

    def seeing(session: Session, asks: Sequence[Ask]) -> Sequence[Any]:
        found = zip(asks, ask(session, asks), strict=True)
        return [[{"name": seen}] if name == "seen_history" else rows for (name, _), rows in found]

    monkeypatch.setattr(Session, "ask", seeing)


def test_a_server_that_starts_in_the_same_history_waits_for_no_lock(url: str) -> None:
    """Not even for that of a hung one, which all commits share: it can read and deliver at once."""
    first = opened(url)
    run(first.add_key(KEY))
    first.close()
    with psycopg.connect(url) as hung:
        hung.execute(load("postgres")["share_rules"].text.encode())
        second = PostgresDatabase(url, secrets=PlainBox(), clock=SteppedClock(), seconds=60)
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
    """As at a provider that does not show its history: there only `uponce fence` helps."""
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
        assert str(name).split("/")[1] == "00000001"
        execute(own.url().replace("/postgres?", "/theirs?"), "REVOKE EXECUTE ON FUNCTION pg_control_system FROM PUBLIC")
        database.close()
        execute(theirs, STANDBY)
        database = opened(theirs)
        assert told(database, "second") == "ok"
        database.close()
    finally:
        own.stop()
