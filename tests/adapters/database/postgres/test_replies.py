"""Stored replies on PostgreSQL, beyond what every back end is held to."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest

from tests.contract.databases import KEY, SteppedClock, attempt, draft, grant, open_postgres, run
from tests.postgres import shared
from uponce.adapters.database import upkeep
from uponce.adapters.database.postgres import PostgresDatabase


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def database(clock: SteppedClock) -> Iterator[PostgresDatabase]:
    database = open_postgres(shared().fresh_schema(), clock)
    run(database.add_key(KEY))
    yield database
    database.close()


def stored(database: PostgresDatabase) -> int:
    with psycopg.connect(database._address.url) as connection:
        row = connection.execute("SELECT count(*) FROM replies").fetchone()
    assert row is not None
    count: int = row[0]
    return count


def test_a_purge_drops_all_old_replies_however_many(
    database: PostgresDatabase, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes in steps of so many rows, until nothing is left to drop."""
    monkeypatch.setattr(upkeep, "BATCH", 2)
    for number in range(5):
        keyed = replace(draft(blob=f"blob-{number}"), idempotency_key="key")
        assert run(attempt(database, grant(str(number)), keyed)) == "ok"
    assert stored(database) == 5
    clock.time = grant().keep_until + 1
    run(database.purge(10**6))
    assert stored(database) == 0


def test_a_repeat_that_cannot_be_stored_harms_neither_its_equal_nor_its_batch(database: PostgresDatabase) -> None:
    """The next one with the same key is no repeat then, and happens."""
    huge = replace(
        draft("huge", blob="huge", digest=replace(draft(blob="x").asset.digest, size=2**63)),
        idempotency_key="key",
    )
    good = replace(draft("good", blob="good"), idempotency_key="key")
    again = replace(draft("good", blob="again"), idempotency_key="key")

    async def together() -> list[str]:
        racers = (
            attempt(database, grant("first"), draft("first", blob="first")),  # those that follow gather behind it
            attempt(database, grant("a"), huge),
            attempt(database, grant("a"), good),
            attempt(database, grant("a"), again),
            attempt(database, grant("b"), draft("other", blob="other")),
        )
        return list(await asyncio.gather(*racers))

    assert run(together()) == ["ok", "database_unavailable", "ok", "ok", "ok"]
    record = run(database.find_grant(grant("a").key))
    assert record is not None
    assert (record.uses, stored(database)) == (1, 1)
