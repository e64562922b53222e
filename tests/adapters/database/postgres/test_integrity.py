"""`uponce fsck --deep` compares each index, however long that takes."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from tests.contract.databases import PlainBox, prepared, run
from tests.postgres import shared
from uponce.adapters.database.postgres import PostgresDatabase
from uponce.adapters.database.postgres.session import Session
from uponce.adapters.database.statements import Statement, load
from uponce.adapters.database.steps import Ask
from uponce.core.errors import DatabaseUnavailable


@pytest.fixture
def database() -> Iterator[PostgresDatabase]:
    database = PostgresDatabase(prepared(shared().fresh_schema()), secrets=PlainBox(), seconds=60)
    database.open()
    yield database
    database.close()


@pytest.fixture
def amcheck(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server of the tests has no extensions, so one is pretended. Its database has two indexes."""
    ask = Session.ask
    pretended = {
        "find_amcheck": [{"role": "uponce", "schema": "public"}],
        "list_indexes": [{"name": "grants_other_pkey"}, {"name": "assets_pkey"}],
    }

    def asked(session: Session, asks: Sequence[Ask]) -> Sequence[Any]:
        return [pretended.get(name, rows) for (name, _), rows in zip(asks, ask(session, asks), strict=True)]

    monkeypatch.setattr(Session, "ask", asked)


def checking(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setitem(load("postgres"), "check_index", Statement("check_index", text, True, ("name",), False, False))


@pytest.mark.usefixtures("amcheck")
def test_a_check_may_take_longer_than_a_statement_of_a_request(
    database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_patient = "CAST(current_setting('statement_timeout') = '0' AS int)"
    checking(monkeypatch, f"SELECT 1 / {is_patient}, CAST(:name AS regclass)")
    assert run(database.integrity(deep=True)) == []
    (connection,) = (session.connection for session in database._pool._idle)
    assert connection.deadline is None, "nor does the client give up"
    assert connection.execute("SHOW statement_timeout").fetchone() == ("1min",)


@pytest.mark.usefixtures("amcheck")
def test_faults_are_named_and_an_index_that_is_gone_has_none(
    database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    checking(monkeypatch, "SELECT CAST(:name || '_gone' AS regclass)")
    assert run(database.integrity(deep=True)) == []
    with psycopg.connect(database._address.url) as connection:
        connection.execute(
            "CREATE FUNCTION broken(text) RETURNS void LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE 'item order' USING ERRCODE = 'XX002'; END $$"
        )
    checking(monkeypatch, "SELECT broken(:name)")
    found = run(database.integrity(deep=True))
    assert [fault.is_damage for fault in found] == [True, True]
    assert found[0].message.startswith("item order. Run REINDEX INDEX grants_other_pkey")


@pytest.mark.usefixtures("amcheck")
def test_a_check_that_fails_for_another_reason_is_no_success(
    database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    checking(monkeypatch, "SELECT 1 / length(substr(:name, 1000))")
    with pytest.raises(DatabaseUnavailable):
        run(database.integrity(deep=True))


@pytest.mark.parametrize(("days", "is_damage"), [(0, True), (6, True), (8, False), (400, False)])
def test_page_checksums_that_failed_long_ago_are_no_damage_now(
    database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch, days: int, is_damage: bool
) -> None:
    """PostgreSQL never forgets a failure, also after a repair. A damaged page that is read fails again."""
    with psycopg.connect(database._address.url) as connection:
        connection.execute(
            "CREATE TABLE failing AS SELECT current_database() AS datname, 3 AS checksum_failures, "
            f"now() - interval '{days} days' AS checksum_last_failure"
        )
    real = load("postgres")["checksum_failures"]
    of_test = replace(real, text=real.text.replace("pg_stat_database", "failing"))
    monkeypatch.setitem(load("postgres"), "checksum_failures", of_test)
    (fault,) = run(database.integrity(deep=False))
    assert fault.is_damage == is_damage
    assert fault.message.startswith("page checksums failed 3 times, last 20")
    assert "SELECT pg_stat_reset()" in fault.message


@pytest.mark.usefixtures("amcheck")
@pytest.mark.parametrize("sqlstate", ["42501", "42883"])
def test_a_function_that_the_role_cannot_call_is_named_with_the_cure(
    database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch, sqlstate: str
) -> None:
    """The extension takes EXECUTE from PUBLIC, so the role of the guide has no right at first."""
    with psycopg.connect(database._address.url) as connection:
        connection.execute(
            "CREATE FUNCTION refused(text) RETURNS void LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE 'permission denied' USING ERRCODE = '{sqlstate}'; END $$"
        )
    checking(monkeypatch, "SELECT refused(:name)")
    (fault,) = run(database.integrity(deep=True))
    assert not fault.is_damage
    assert "permission denied" in fault.message
    assert "GRANT EXECUTE ON FUNCTION bt_index_check(regclass, boolean) TO uponce" in fault.message
    run(database.ping())


def test_only_valid_b_trees_are_compared(database: PostgresDatabase) -> None:
    """`bt_index_check` refuses every other index."""
    with psycopg.connect(database._address.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE notes (words text[])")
        connection.execute("CREATE INDEX notes_words ON notes USING gin (words)")
        connection.execute("INSERT INTO notes VALUES ('{}'), ('{}')")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("CREATE UNIQUE INDEX CONCURRENTLY notes_invalid ON notes (words)")
        listed = {name for (name,) in connection.execute(load("postgres")["list_indexes"].text.encode())}
        (message,) = [fault.message for fault in run(database.integrity(deep=False))]
        assert "notes_invalid is not valid. Run REINDEX INDEX " in message
        connection.execute("DROP INDEX notes_invalid")  # the other tests of this server would report it
    assert "assets_pkey" in listed
    assert not listed & {"notes_words", "notes_invalid"}
