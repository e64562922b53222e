"""Effects that wait for another one of their asset, beside other servers, and what a look into a full outbox reads."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from tests.adapters.database.pages import FIRST as HELD
from tests.adapters.database.pages import MANY, waiting
from tests.adapters.database.postgres.test_rows_read import FEW, change, rows_read, rows_read_by_one_plan
from tests.contract.databases import CALLER, KEY, PlainBox, SteppedClock, claim, draft, grant, run
from tests.postgres import shared
from uponce.adapters.database import outbox, upkeep
from uponce.adapters.database.postgres import PostgresDatabase
from uponce.adapters.database.postgres.connection import adapt
from uponce.adapters.database.statements import load
from uponce.adapters.database.steps import Operation, Steps, operation
from uponce.app.ports import NewEffect

FIRST, SECOND = 1, 2
NOTIFY = "notify"


@pytest.fixture
def database() -> Iterator[PostgresDatabase]:
    """Two effects of one asset."""
    database = PostgresDatabase(shared().fresh_schema(), secrets=PlainBox(), clock=SteppedClock(), seconds=60)
    database.open()
    run(database.add_key(KEY))
    for name in "ab":
        run(
            database.commit(grant(name), replace(draft(blob=name), effects=(NewEffect(NOTIFY, "app.example"),)), CALLER)
        )
    yield database
    database.close()


@pytest.fixture
def other_server(database: PostgresDatabase) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database._address.url) as connection:
        adapt(connection)
        yield connection


async def claimed(database: PostgresDatabase) -> list[int]:
    return [effect.id for effect in await claim(database, NOTIFY)]


def check_the_second_is_due_after_the_first(database: PostgresDatabase, ending: psycopg.Connection) -> None:
    """A server is just ending the first one, and another one looks."""
    assert run(claimed(database)) == [FIRST]
    run(database.retry_effects(SECOND))
    ending.execute("DELETE FROM outbox WHERE id = %s", (FIRST,))
    ending.execute("UPDATE outbox SET due_at = 0 WHERE id = %s AND due_at > %s", (SECOND, SteppedClock().now()))
    assert run(claimed(database)) == []
    ending.commit()
    assert run(claimed(database)) == [SECOND]


def test_no_effect_is_delayed_while_the_one_before_it_ends(
    database: PostgresDatabase, other_server: psycopg.Connection
) -> None:
    check_the_second_is_due_after_the_first(database, other_server)


def test_the_check_goes_red_if_the_one_before_is_not_held(
    database: PostgresDatabase, other_server: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = load("postgres")["hold_effect"]
    monkeypatch.setitem(
        load("postgres"), hold.name, replace(hold, text=hold.text.replace("FOR UPDATE SKIP LOCKED", ""))
    )
    with pytest.raises(AssertionError, match=r"^assert \[\] == \[2\]"):
        check_the_second_is_due_after_the_first(database, other_server)


def test_an_end_waits_for_a_server_that_delays_and_then_hastens(
    database: PostgresDatabase, other_server: psycopg.Connection
) -> None:
    async def play() -> None:
        assert await claimed(database) == [FIRST]
        await database.retry_effects(SECOND)
        other_server.execute("SELECT id FROM outbox FOR UPDATE SKIP LOCKED")
        ending = asyncio.create_task(database.finish_effect(FIRST))
        await asyncio.sleep(0.3)
        assert not ending.done()
        other_server.execute("UPDATE outbox SET due_at = due_at + 9999 WHERE id = %s", (SECOND,))
        other_server.commit()
        await ending
        assert await claimed(database) == [SECOND]

    run(play())


@pytest.fixture
def crowded() -> Iterator[tuple[PostgresDatabase, psycopg.Connection]]:
    """A server whose outbox is full, and a connection to its database."""
    database = PostgresDatabase(shared().fresh_schema(), secrets=PlainBox(), clock=SteppedClock(), seconds=60)
    database.open()
    with psycopg.connect(database._address.url, autocommit=True) as connection:
        adapt(connection)
        connection.execute(waiting(f"generate_series(1, {2 * MANY + 2}) AS i").encode())
        connection.execute("ANALYZE outbox")
        yield database, connection
    database.close()


@operation(writes=True)
def hasten_next(now: float) -> Steps[None]:
    """The second statement of an effect's end."""
    yield [("hasten_next_effect", {"id": HELD, "subject": "one", "now": int(now)})]


@operation()
def walk(now: float) -> Steps[None]:
    """The second statement of a look for receivers."""
    yield [("find_due_receivers", {"name": "notify", "after": "", "until": "z", "now": int(now), "most": 16})]


LOOK: list[Operation[Any]] = [
    outbox.list_receivers("notify", "", 16),
    walk(),
    outbox.delay_waiting("notify", {"-": 16}, upkeep.BATCH),
    outbox.claim("notify", {"-": 16}, 120),
]


def test_a_look_reads_each_effect_behind_another_one_once(
    crowded: tuple[PostgresDatabase, psycopg.Connection],
) -> None:
    database, connection = crowded
    assert rows_read(connection, LOOK[2]) <= 2 * upkeep.BATCH
    assert [effect.subject for effect in run(claim(database, "notify", 16, 120))] == ["another"]
    for _ in range(2):
        for read in (rows_read, rows_read_by_one_plan):
            asked = (*LOOK, hasten_next(), outbox.hasten_far(upkeep.BATCH))
            assert [read(connection, each) <= FEW for each in asked] == [True] * 6
        connection.execute("ANALYZE outbox")
    run(database.finish_effect(HELD))
    assert [effect.id for effect in run(claim(database, "notify", 16, 120))] == [HELD + 1]
    assert [rows_read(connection, each) <= FEW for each in LOOK] == [True] * 4


def test_the_check_goes_red_if_waiting_effects_stay_due(
    crowded: tuple[PostgresDatabase, psycopg.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    change(monkeypatch, "find_first_effects", ":most", "0 * :most")
    database, connection = crowded
    assert len(run(claim(database, "notify", 16, 120))) == 1
    assert rows_read(connection, LOOK[3]) > MANY / 4


def test_a_look_for_receivers_reads_few_effects_of_each(crowded: tuple[PostgresDatabase, psycopg.Connection]) -> None:
    database, connection = crowded
    connection.execute("UPDATE outbox SET receiver = 'another' WHERE subject = 'another'")
    connection.execute("ANALYZE outbox")
    assert run(database.list_receivers("notify", "", 16)) == ["-", "another"]
    for read in (rows_read, rows_read_by_one_plan):
        assert [read(connection, each) <= FEW for each in LOOK[:2]] == [True] * 2
    connection.execute("DROP INDEX outbox_receivers")
    assert rows_read(connection, walk()) > MANY / 4


def test_the_check_goes_red_without_the_order_of_a_subject(
    crowded: tuple[PostgresDatabase, psycopg.Connection],
) -> None:
    database, connection = crowded
    run(claim(database, "notify", 16, 120))
    connection.execute("DROP INDEX outbox_order")
    assert rows_read(connection, hasten_next()) > MANY / 4
