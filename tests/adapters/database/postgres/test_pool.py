"""What threads and cancelled callers do to the connections of others: nothing."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from psycopg.pq import TransactionStatus

from uponce.adapters.database.postgres import pool
from uponce.adapters.database.postgres.connection import DatabaseAddress
from uponce.adapters.database.postgres.pool import Pool


class Taken(list[Any]):
    """Idle connections that another thread takes whenever this one has seen that there are some."""

    def __len__(self) -> int:
        return 1


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Pool:
    """A pool whose connections are idle, alive, and to no server."""
    idle: Any = SimpleNamespace(info=SimpleNamespace(transaction_status=TransactionStatus.IDLE))
    session: Any = SimpleNamespace(connection=idle, limit=lambda patient: None)
    opened = Pool(DatabaseAddress("postgresql://nowhere", 5), 3, None, lambda _: None, lambda _: False)
    monkeypatch.setattr(opened, "new", lambda: session)
    monkeypatch.setattr(pool, "is_dead", lambda _: False)
    monkeypatch.setattr(pool, "discard", lambda _: None)
    opened.open()
    return opened


def test_a_thread_that_finds_the_last_idle_connection_taken_opens_one(opened: Pool) -> None:
    opened._idle = Taken()
    assert opened.borrow() is opened.new()
    opened.close()


def test_a_caller_that_is_cancelled_after_its_work_cuts_no_connection(
    opened: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection was given back, and may have another caller by now."""
    cut: list[Any] = []
    given_back = threading.Event()
    give_back = opened._give_back
    monkeypatch.setattr(pool, "cut", cut.append)

    def noted(session: Any) -> None:
        give_back(session)
        given_back.set()

    monkeypatch.setattr(opened, "_give_back", noted)

    async def cancelled() -> None:
        caller = asyncio.create_task(opened.run(lambda session: None))
        await asyncio.sleep(0)
        assert given_back.wait(60)  # the loop stands still, so it does not know yet that the work is done
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller

    asyncio.run(cancelled())
    assert cut == []
    opened.close()


def test_a_caller_that_is_cancelled_during_its_work_ends_its_connection(
    opened: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut: list[Any] = []
    begun, ended = threading.Event(), threading.Event()
    monkeypatch.setattr(pool, "cut", cut.append)

    def work(session: Any) -> None:
        begun.set()
        ended.wait(60)

    async def cancelled() -> None:
        caller = asyncio.create_task(opened.run(work))
        await asyncio.to_thread(begun.wait, 60)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        ended.set()

    asyncio.run(cancelled())
    assert cut == [opened.new().connection]
    opened.close()


def test_the_work_of_a_caller_that_is_cancelled_during_the_connecting_does_not_begin(
    opened: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could take long, and no caller would end it. Its connection is still good."""
    worked: list[Any] = []
    connecting, connected = threading.Event(), threading.Event()
    session = opened.new()

    def slow() -> Any:
        connecting.set()
        assert connected.wait(60)
        return session

    monkeypatch.setattr(opened, "new", slow)

    async def cancelled() -> None:
        caller = asyncio.create_task(opened.run(worked.append))
        await asyncio.to_thread(connecting.wait, 60)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        connected.set()
        while not opened._idle:
            await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(cancelled(), 60))
    assert (worked, opened._idle) == ([], [session])
    opened.close()
