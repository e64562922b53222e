"""The look-ups of the event loop: what they find, and that they wait for nothing."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.databases import CALLER, KEY, PlainBox, SteppedClock, draft, grant, run
from uponce.adapters.database import steps
from uponce.adapters.database.sqlite import SqliteDatabase, readers
from uponce.adapters.database.sqlite.connection import Connection, connect
from uponce.core.errors import DatabaseUnavailable, InvalidParameter

DRAFT = draft(blob="x")


@pytest.fixture(autouse=True)
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """No look-up is slow here: on a busy machine one takes longer than 5 ms, and then only threads look."""
    monkeypatch.setattr(readers, "monotonic", lambda: 100.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "u.db"


@pytest.fixture
def database(path: Path) -> Iterator[SqliteDatabase]:
    database = SqliteDatabase(path, clock=SteppedClock(), secrets=PlainBox())
    database.open()
    run(database.add_key(KEY))
    yield database
    database.close()


def test_a_glance_finds_what_is_committed_and_sees_that_it_changed(database: SqliteDatabase) -> None:
    glance = database.glance
    before = glance.version()
    assert glance.find_asset(DRAFT.asset.name) is None
    assert glance.version() == before
    asset = run(database.commit(grant("a"), DRAFT, CALLER)).asset
    assert glance.version() != before
    assert glance.find_asset(DRAFT.asset.name) == asset


def test_it_waits_for_no_lock_of_another_process(database: SqliteDatabase) -> None:
    """SQLite would else sleep on the event loop until the lock is free, for seconds."""
    assert database.glance._held.connection is not None
    assert database.glance._held.connection.execute("PRAGMA busy_timeout").fetchone()[0] == 0


@pytest.mark.parametrize("error", [sqlite3.OperationalError("database is locked"), sqlite3.DatabaseError("torn")])
def test_after_a_failure_threads_look_until_one_of_them_has_opened_it_again(path: Path, error: Exception) -> None:
    failing = False

    class Failing(Connection):
        def execute(self, sql: str, parameters: object = (), /) -> sqlite3.Cursor:
            if failing:
                raise error
            return super().execute(sql, parameters)  # type: ignore[arg-type]

    database = SqliteDatabase(
        path, clock=SteppedClock(), secrets=PlainBox(), connect=lambda file: connect(file, factory=Failing)
    )
    database.open()
    for look in (database.glance.version, lambda: database.glance.find_asset(DRAFT.asset.name)):
        failing = True
        with pytest.raises(DatabaseUnavailable):
            look()
        failing = False
        with pytest.raises(DatabaseUnavailable):
            look()
        assert run(database.find_asset(DRAFT.asset.name)) is None
        look()
    database.close()
    with pytest.raises(DatabaseUnavailable):
        database.glance.version()


def test_a_name_that_is_no_text_costs_no_connection(database: SqliteDatabase) -> None:
    with pytest.raises(InvalidParameter):
        database.glance.find_asset(draft("\udcff", blob="x").asset.name)
    assert database.glance.find_asset(DRAFT.asset.name) is None


def test_after_a_slow_look_threads_look_for_a_second(database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    now, find = 100.0, steps.run

    def slow(*arguments: Any) -> object:
        nonlocal now
        now += 0.006
        return find(*arguments)

    def may_look() -> bool:
        try:
            database.glance.version()
        except DatabaseUnavailable:
            return False
        return True

    monkeypatch.setattr(readers, "monotonic", lambda: now)
    monkeypatch.setattr(readers, "run", slow)
    assert database.glance.find_asset(DRAFT.asset.name) is None
    assert not may_look()
    now += 0.9
    assert not may_look()
    now += 0.2
    assert may_look()
