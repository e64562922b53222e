"""A lock that another server holds for long keeps only those waiting that need it."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from itertools import cycle
from threading import Event, Thread
from typing import Any

import psycopg
import pytest

from tests.adapters.database.postgres.patience import wait_at_most
from tests.contract.databases import KEY, PlainBox, SteppedClock, attempt, draft, grant, prepared, relay, run
from tests.contract.test_database_series import begin, series
from tests.postgres import shared
from uponce.adapters.database import committer
from uponce.adapters.database.committer import More
from uponce.adapters.database.postgres import PostgresDatabase, pool
from uponce.adapters.database.postgres.connection import connect
from uponce.adapters.database.postgres.pool import Engine
from uponce.adapters.database.postgres.session import Session
from uponce.adapters.database.steps import BEGINNING_A_SERIES, Operation, Rules, of_grant, of_name
from uponce.core.errors import DatabaseUnavailable
from uponce.core.relaying import Relay
from uponce.core.series import Series

pytestmark = pytest.mark.proof

OTHERS = 20
HELD = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND granted"
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


@pytest.fixture
def database() -> Iterator[PostgresDatabase]:
    url = prepared(shared().fresh_schema())
    database = PostgresDatabase(url, secrets=PlainBox(), clock=SteppedClock(), seconds=60)
    database.open()
    database._pool.seconds = 1  # for a lock that another server holds
    yield database
    database.close()


@pytest.fixture(autouse=True)
def no_operation_is_young(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer, "_YOUNG_SECONDS", 0)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of how many operations the committing thread waited for locks, each time."""
    waits: list[int] = []
    wait = Engine.wait

    def noted(engine: Engine, operations: Sequence[Operation[Any]], others_wait: Callable[[], bool]) -> Sequence[Any]:
        waits.append(len(operations))
        return wait(engine, operations, others_wait)

    monkeypatch.setattr(Engine, "wait", noted)
    return waits


@contextmanager
def stuck(database: PostgresDatabase, number: int) -> Iterator[None]:
    with psycopg.connect(database._address.url) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", [number])
        yield


STUCK = {"a name": of_name(draft("stuck", blob="").asset.name), "a signature": of_grant(grant("stuck").key)}


@pytest.mark.parametrize("number", STUCK.values(), ids=STUCK)
def test_others_of_the_group_are_answered_and_do_not_wait(database: PostgresDatabase, number: int) -> None:
    answers: list[tuple[str, str]] = []

    async def upload(name: str) -> None:
        answers.append((name, await attempt(database, grant(name), draft(name, blob=f"blob-{name}"))))

    async def together() -> None:
        names = ["stuck", *map(str, range(OTHERS))]
        await asyncio.gather(*map(upload, names[::-1]))

    with stuck(database, number):
        run(together())
    assert [told for _, told in answers[:-1]] == ["ok"] * OTHERS
    assert answers[-1] == ("stuck", "database_unavailable")
    assert run(attempt(database, grant("stuck"), draft("stuck", blob="blob"))) == "ok"


def test_a_lock_that_was_waited_for_in_vain_is_waited_for_only_once(
    database: PostgresDatabase, waits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(name: str) -> str:
        return run(attempt(database, grant(name), draft("stuck", blob=f"blob-{name}")))

    with stuck(database, STUCK["a name"]):
        now = time.monotonic()  # before: so it is remembered for longer than a second from here
        assert told("first") == "database_unavailable"
        with monkeypatch.context() as patched:
            patched.setattr(pool, "monotonic", lambda: now)  # it is remembered for a second
            assert [told(f"{number}") for number in range(4)] == ["database_unavailable"] * 4
        assert waits == [1]
    assert told("free again") == "ok"
    with stuck(database, STUCK["a name"]):
        assert told("stuck again") == "database_unavailable"
    assert waits == [1, 1]


def test_a_wait_ends_soon_once_others_wait(database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take ten times as long, and the upload would wait for it."""
    monkeypatch.setattr(pool, "_MOMENT", 50)
    monkeypatch.setattr(pool, "_STUCK_SECONDS", 0.2)
    monkeypatch.setattr(database._pool, "seconds", 1000)

    async def story() -> list[str]:
        waiting = asyncio.create_task(attempt(database, grant("a"), draft("stuck", blob="a")))
        await asyncio.to_thread(until_one_waits, database)
        other = await attempt(database, grant("b"), draft("b", blob="b"))
        return [other, await waiting]

    with stuck(database, STUCK["a name"]):
        assert run(story()) == ["ok", "database_unavailable"]


def test_a_lock_of_a_busy_server_is_waited_for_also_while_others_wait(
    database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its transaction takes longer than a moment, and does not hang."""
    monkeypatch.setattr(pool, "_MOMENT", 50)
    monkeypatch.setattr(pool, "_STUCK_SECONDS", 1000)
    monkeypatch.setattr(database._pool, "seconds", 1000)
    moments: list[int] = []
    transact = Engine._transact

    def noted(engine: Engine, operations: Sequence[Operation[Any]], milliseconds: int | None) -> Sequence[Any]:
        moments.extend([] if milliseconds is None else [milliseconds])
        return transact(engine, operations, milliseconds)

    monkeypatch.setattr(Engine, "_transact", noted)

    async def story() -> list[str]:
        with stuck(database, STUCK["a name"]):
            waiting = asyncio.create_task(attempt(database, grant("a"), draft("stuck", blob="a")))
            await asyncio.to_thread(until_one_waits, database)
            other = asyncio.create_task(attempt(database, grant("b"), draft("b", blob="b")))
            while len(moments) < 3 and not waiting.done():
                await asyncio.sleep(0.01)
        return [await other, await waiting]

    assert run(story()) == ["ok", "ok"]


def test_a_lock_that_becomes_free_is_waited_for(database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database._pool, "seconds", 60)

    async def story() -> str:
        with stuck(database, STUCK["a name"]):
            waiting = asyncio.create_task(attempt(database, grant("a"), draft("stuck", blob="a")))
            await asyncio.to_thread(until_one_waits, database)
        return await waiting

    assert run(story()) == "ok"


@pytest.mark.parametrize("signatures, uses", [(1, 20), (8, 16)], ids=["one signature", "more than a group"])
def test_young_operations_let_all_others_pass(
    database: PostgresDatabase, waits: list[int], monkeypatch: pytest.MonkeyPatch, signatures: int, uses: int
) -> None:
    """If the thread waited for their locks, the others would, too: these stay taken until the others are answered."""
    monkeypatch.setattr(committer, "_YOUNG_SECONDS", 1000)
    monkeypatch.setattr(database._pool, "seconds", 1000)
    rounds = 0
    transact = Engine.transact

    def limited(engine: Engine, operations: Sequence[Operation[Any]], more: More) -> Sequence[Any]:
        nonlocal rounds
        rounds += 1
        assert rounds < 1000, "the others never get into a group"
        return transact(engine, operations, more)

    monkeypatch.setattr(Engine, "transact", limited)
    monkeypatch.setattr(committer, "_PAUSE_SECONDS", 1)
    grants = [grant(f"stuck {number}") for number in range(signatures)]

    async def story() -> list[str]:
        with ExitStack() as locks:
            for each in grants:
                locks.enter_context(stuck(database, of_grant(each.key)))
            names = [f"{number}" for number in range(signatures * uses)]
            each_use = [draft(name, blob=name) for name in names]
            waiting = [asyncio.create_task(attempt(database, each, use)) for each, use in zip(cycle(grants), each_use)]
            for number in range(OTHERS):
                name = f"other {number}"
                assert await attempt(database, grant(name), draft(name, blob=name)) == "ok"
        monkeypatch.setattr(committer, "_PAUSE_SECONDS", 0)
        return await asyncio.gather(*waiting)

    told = run(story())
    assert set(told) == {"ok", "signature_used"}
    assert told.count("ok") == signatures
    assert waits == []


def test_a_young_operation_is_tried_again_with_the_next_one_or_after_a_pause(
    database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the pause, each server would ask the database without end."""
    monkeypatch.setattr(committer, "_YOUNG_SECONDS", 1000)
    monkeypatch.setattr(committer, "_PAUSE_SECONDS", 1000)
    tries: list[int] = []
    transact = Engine.transact

    def noted(engine: Engine, operations: Sequence[Operation[Any]], more: More) -> Sequence[Any]:
        tries.append(len(operations))
        return transact(engine, operations, more)

    monkeypatch.setattr(Engine, "transact", noted)

    async def story() -> list[str]:
        with stuck(database, STUCK["a name"]):
            waiting = asyncio.create_task(attempt(database, grant("a"), draft("stuck", blob="a")))
            while not tries:
                await asyncio.sleep(0.01)
            told = [await attempt(database, grant("b"), draft("b", blob="b"))]
        monkeypatch.setattr(committer, "_PAUSE_SECONDS", 0)
        return [*told, await attempt(database, grant("c"), draft("c", blob="c")), await waiting]

    assert run(story()) == ["ok", "ok", "ok"]
    assert tries[:3] == [1, 2, 2]


def until_one_waits(database: PostgresDatabase) -> None:
    until_some_wait(database, 1)


def until_some_wait(database: PostgresDatabase, many: int) -> None:
    waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with psycopg.connect(database._address.url, autocommit=True) as connection:
        while len(connection.execute(waiting).fetchall()) < many:
            pass


def test_a_server_that_hangs_right_before_its_commit_does_not_keep_its_locks(
    database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that SIGSTOP hits there: its statements arrived, and nothing says that they were all."""
    hung = connect(replace(database._address, seconds=3))
    assert hung.info.server_version >= 17_00_00, "an older one keeps them, as the guide says"
    woken = Event()

    def hang(*_: object) -> None:
        woken.wait()
        raise psycopg.OperationalError

    def hold() -> None:
        session = Session(hung, None)
        with suppress(psycopg.Error), hung.pipeline():
            session.begin(Rules.OWN, ())
            session.commit()

    monkeypatch.setattr(hung, "execute", hang)  # COMMIT alone is sent by it
    holder = Thread(target=hold)
    holder.start()
    try:
        with psycopg.connect(database._address.url, autocommit=True) as look:
            while not look.execute(HELD).fetchall():
                time.sleep(0.01)
        wait_at_most(database, 1)
        assert run(attempt(database, grant("a"), draft(blob="a"))) == "database_unavailable"
        wait_at_most(database, 60)
        assert run(attempt(database, grant("a"), draft(blob="a"))) == "ok"
    finally:
        woken.set()
        holder.join()
        hung.close()


def beginning(database: PostgresDatabase, name: str) -> "asyncio.Task[Series]":
    return asyncio.ensure_future(begin(database, series(name, upload_id=name), grant(name), per_key=100, in_all=100))


def test_uploads_in_parts_that_wait_leave_connections_to_others(database: PostgresDatabase) -> None:
    """A server that froze while it began one keeps all others of all servers from beginning one, and nothing else."""
    places = database._pool.waiting_places

    async def play() -> None:
        with stuck(database, BEGINNING_A_SERIES):
            waiting = [beginning(database, f"{number}") for number in range(20)]
            await asyncio.to_thread(until_some_wait, database, places)
            assert await database.find_key(KEY.api_key)
            await database.ping()
            assert await attempt(database, grant(), draft(blob="blob")) == "ok"
            assert not any(each.done() for each in waiting)
        await asyncio.gather(*waiting)

    assert 0 < places < database._pool._size
    run(play())


def test_an_owner_that_another_transaction_makes_is_returned(database: PostgresDatabase) -> None:
    first = run(database.make_owner())

    async def follow(other: psycopg.Connection) -> str:
        following = asyncio.ensure_future(database.follow_owner(first))
        while not following.done() and shared().ask(WAITING) == [(0,)]:
            await asyncio.sleep(0.01)
        other.commit()
        return await following

    with psycopg.connect(database._address.url) as other:
        other.execute("DELETE FROM owner")
        other.execute("INSERT INTO owner (one, name) VALUES (1, 'other')")
        assert run(follow(other)) == run(database.owner()) == "other"


def test_an_upload_does_not_wait_for_the_end_of_a_relay_whose_effect_is_held(database: PostgresDatabase) -> None:
    """A server that froze while it claimed the effect may hold the row."""
    pending = run(database.begin_relay(relay(grant("passed on")), 60))
    assert isinstance(pending, Relay)
    wait_at_most(database, 10)

    async def play() -> tuple[object, ...]:
        ending = database.end_relay(pending, None)
        return tuple(await asyncio.gather(ending, attempt(database, grant(), draft(blob="a")), return_exceptions=True))

    with psycopg.connect(database._address.url) as other:
        other.execute("SELECT FROM outbox FOR UPDATE")
        ended, told = run(play())
    assert isinstance(ended, DatabaseUnavailable)
    assert told == "ok"
    wait_at_most(database, 60)
    assert run(database.end_relay(pending, None))
