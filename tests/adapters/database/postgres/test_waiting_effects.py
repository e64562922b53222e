"""An effect that waits for another one is due when the other one ends, also if both happen at once on two servers."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest

from tests.contract.databases import CALLER, KEY, PlainBox, SteppedClock, draft, grant, run
from tests.postgres import shared
from uponce.adapters.database.postgres import PostgresDatabase
from uponce.adapters.database.postgres.connection import adapt
from uponce.adapters.database.statements import load

FIRST, SECOND = 1, 2
NOTIFY = "notify"


@pytest.fixture
def database() -> Iterator[PostgresDatabase]:
    """Two effects of one asset."""
    database = PostgresDatabase(shared().fresh_schema(), secrets=PlainBox(), clock=SteppedClock(), seconds=60)
    database.open()
    run(database.add_key(KEY))
    for name in "ab":
        run(database.commit(grant(name), replace(draft(blob=name), effects=((NOTIFY, ""),)), CALLER))
    yield database
    database.close()


@pytest.fixture
def other_server(database: PostgresDatabase) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database._address.url) as connection:
        adapt(connection)
        yield connection


async def claim(database: PostgresDatabase) -> list[int]:
    return [effect.id for effect in await database.claim_effects(NOTIFY, 10, 60)]


def check_the_second_is_due_after_the_first(database: PostgresDatabase, ending: psycopg.Connection) -> None:
    """A server is just ending the first one, and another one looks."""
    assert run(claim(database)) == [FIRST]
    run(database.retry_effects(SECOND))
    ending.execute("DELETE FROM outbox WHERE id = %s", (FIRST,))
    ending.execute("UPDATE outbox SET due_at = 0 WHERE id = %s AND due_at > %s", (SECOND, SteppedClock().now()))
    assert run(claim(database)) == []
    ending.commit()
    assert run(claim(database)) == [SECOND]


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
    with pytest.raises(AssertionError):
        check_the_second_is_due_after_the_first(database, other_server)


def test_an_end_waits_for_a_server_that_delays_and_then_hastens(
    database: PostgresDatabase, other_server: psycopg.Connection
) -> None:
    async def play() -> None:
        assert await claim(database) == [FIRST]
        await database.retry_effects(SECOND)
        other_server.execute("SELECT id FROM outbox FOR UPDATE SKIP LOCKED")
        ending = asyncio.create_task(database.finish_effect(FIRST))
        await asyncio.sleep(0.3)
        assert not ending.done()
        other_server.execute("UPDATE outbox SET due_at = due_at + 9999 WHERE id = %s", (SECOND,))
        other_server.commit()
        await ending
        assert await claim(database) == [SECOND]

    run(play())
