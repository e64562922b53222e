"""Nothing that every use depends on changes while a use is under way on another server: purges, fences, keys."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from threading import Event

import psycopg
import pytest

from tests.contract.databases import (
    CALLER,
    KEY,
    SKEW,
    START,
    SteppedClock,
    attempt,
    draft,
    grant,
    open_postgres,
    relay,
    run,
)
from tests.contract.test_database_series import A, begin, complete, join, series
from tests.postgres import shared
from uponce.adapters.database.postgres import PostgresDatabase, schema, session
from uponce.adapters.database.postgres.connection import is_in_the_way
from uponce.adapters.database.statements import load
from uponce.adapters.database.steps import Ask, Rows
from uponce.adapters.database.upkeep import BATCH, purge_grants
from uponce.core.errors import DatabaseUnavailable

CHANGES: dict[str, Callable[[PostgresDatabase], Awaitable[object]]] = {
    "fence": lambda server: server.fence(SKEW),
    "widen_fence": lambda server: server.widen_fence(SKEW),
    "revoke_key": lambda server: server.revoke_key(KEY.api_key),
    "condemn": lambda server: server.condemn(["blob"]),
}

USES: dict[str, Callable[[PostgresDatabase], Awaitable[object]]] = {
    "create_series": lambda server: begin(server, series("new", upload_id="new"), grant("new")),
    "join_series": lambda server: join(server, "one", grant("joins")),
    "commit_series": lambda server: server.commit_series("one", draft("dog", blob="published"), CALLER),
    "begin_relay of a series": lambda server: server.begin_relay(relay(A, series="one"), 60),
    "end_relay": lambda server: server.end_relay(relay(grant("passed on")), None),
}


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def servers(clock: SteppedClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[PostgresDatabase]]:
    """Two on one database, which was fenced before."""
    monkeypatch.setattr(session, "OWN_MILLISECONDS", 20_000)
    url = shared().fresh_schema()
    servers = [open_postgres(url, clock) for _ in range(2)]
    clock.time = START - 900
    run(servers[0].fence(0))
    clock.time = START
    run(servers[0].add_key(KEY))
    yield servers
    for server in servers:
        server.close()


async def wait_for(transactions: int, unless: "asyncio.Task[object] | None" = None) -> None:
    """Return when so many transactions wait for a lock, or the task is done."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    while shared().ask(waiting) != [(transactions,)] and not (unless and unless.done()):
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_the_rules_waits_for_a_commit_that_has_read_them(
    servers: list[PostgresDatabase], name: str
) -> None:
    """Or the commit would still come after the change had been answered."""
    one, two = servers

    async def play() -> None:
        with psycopg.connect(one._address.url) as holder:
            holder.execute("LOCK TABLE assets IN SHARE MODE")  # it may be read; the commit waits with its write
            commit = asyncio.create_task(attempt(one, grant(), draft(blob="blob")))
            await wait_for(1)
            change = asyncio.ensure_future(CHANGES[name](two))
            await wait_for(2, unless=change)
            assert not change.done()
        assert await commit == "ok"
        await change

    run(play())


@pytest.mark.parametrize("name", USES)
def test_a_use_in_parts_or_of_a_relay_waits_for_a_change_of_the_rules(
    servers: list[PostgresDatabase], name: str
) -> None:
    """Or a use that has read the rules of before would still come after the change had been answered."""
    server = servers[0]

    async def play() -> None:
        await complete(server, A)
        await server.begin_relay(relay(grant("passed on")), 60)
        with psycopg.connect(server._address.url) as owner:
            owner.execute(load("postgres")["own_rules"].text.encode())
            use = asyncio.ensure_future(USES[name](server))
            await wait_for(1, unless=use)
            assert not use.done()
        await use

    run(play())


def test_a_commit_beside_a_purge_finds_the_row_or_the_watermark(
    servers: list[PostgresDatabase], clock: SteppedClock
) -> None:
    """Otherwise it reads the watermark first, finds no row then, and a spent signature works again."""
    one, two = servers
    assert run(attempt(one, grant(), draft(blob="first"))) == "ok"
    clock.time = grant().keep_until + 1

    async def play() -> None:
        with psycopg.connect(one._address.url) as holder:
            holder.execute("SELECT 1 FROM grants FOR UPDATE")  # the purge stops at this row
            purge = asyncio.ensure_future(two.write(purge_grants(0, BATCH)))
            await wait_for(1)
            replay = asyncio.create_task(attempt(one, grant(), draft(blob="second")))
            await wait_for(2)
        assert (await replay, await purge) == ("stale_request", 1)

    run(play())


def test_a_commit_beside_a_partition_that_goes_finds_the_row_or_the_watermark(
    servers: list[PostgresDatabase], clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it reads the watermark first, and spends in the partition of all other times."""
    one, two = servers
    run(two.purge(10**6))  # makes the partitions
    assert run(attempt(one, grant(), draft(blob="first"))) == "ok"
    clock.time = grant().keep_until + 1
    ask, reached, go_on = session.Session.ask, Event(), Event()

    def wait_before_the_spend(used: session.Session, asks: Sequence[Ask]) -> Sequence[Rows]:
        if any(name == "spend_grant" for name, _ in asks):
            reached.set()
            assert go_on.wait(60)
        return ask(used, asks)

    monkeypatch.setattr(session.Session, "ask", wait_before_the_spend)

    async def play() -> None:
        replay = asyncio.create_task(attempt(one, grant(), draft(blob="second")))
        assert await asyncio.to_thread(reached.wait, 60)
        drop = asyncio.ensure_future(two.write(schema.drop_part(START, 1)))
        await wait_for(1, unless=drop)
        go_on.set()
        assert (await replay, await drop) == ("signature_used", 1)

    run(play())


def test_no_upload_waits_long_behind_a_purge_that_waits_for_a_server_that_hangs(
    servers: list[PostgresDatabase], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = servers
    monkeypatch.setattr(session, "OWN_MILLISECONDS", 300)

    async def play() -> None:
        with psycopg.connect(one._address.url) as hanging:
            hanging.execute("SELECT pg_advisory_xact_lock_shared(hashtextextended('uponce rules', 0))")
            purge = asyncio.ensure_future(two.write(purge_grants(0, BATCH)))
            await wait_for(1, unless=purge)
            upload = asyncio.create_task(attempt(one, grant(), draft(blob="blob")))
            with pytest.raises(DatabaseUnavailable) as refused:
                await purge
            assert is_in_the_way(refused.value)  # it gave up before the time of a whole statement was over
            assert await upload == "ok"

    run(play())
