"""Nothing that every use depends on changes while a use is under way on another server: purges, fences, keys."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import psycopg
import pytest

from tests.contract.databases import KEY, SKEW, START, SteppedClock, attempt, draft, grant, open_postgres, run
from tests.postgres import shared
from uponce.adapters.database.postgres import PostgresDatabase, session
from uponce.adapters.database.postgres.connection import is_in_the_way
from uponce.adapters.database.upkeep import BATCH, purge_grants
from uponce.core.errors import DatabaseUnavailable

CHANGES: dict[str, Callable[[PostgresDatabase], Awaitable[object]]] = {
    "fence": lambda server: server.fence(SKEW),
    "widen_fence": lambda server: server.widen_fence(SKEW),
    "revoke_key": lambda server: server.revoke_key(KEY.api_key),
    "condemn": lambda server: server.condemn(["blob"]),
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
