"""How long operations wait for the committing thread: behind many uses of one grant, and while the database fails."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from tests.adapters.database.postgres.patience import in_time, wait_at_most
from tests.contract.databases import PlainBox, SteppedClock, attempt, draft, grant, prepared, run
from tests.postgres import Postgres
from uponce.adapters.database.committer import TAKEN, Committer, More
from uponce.adapters.database.failures import no_answer
from uponce.adapters.database.postgres import PostgresDatabase
from uponce.adapters.database.postgres.connection import unavailable
from uponce.adapters.database.postgres.pool import MAX_GROUP, Engine
from uponce.adapters.database.steps import Operation, Rules
from uponce.core.errors import DatabaseUnavailable, InvalidParameter, UponceError

COPIES = 1000


class Counted(Engine):
    """Answers each operation with the number of its transaction. The first one waits until `go`."""

    def __init__(self) -> None:
        nothing: Any = None
        super().__init__(nothing)
        self.go = threading.Event()
        self.groups: list[Sequence[int]] = []

    def transact(self, operations: Sequence[Operation[Any]], more: More) -> Sequence[Any]:
        assert self.go.wait(60)
        self.groups.append([number for each in operations for number in each.numbers()])
        return [len(self.groups)] * len(operations)


class Stuck(Engine):
    """The lock of every operation is taken, for longer than it is remembered as stuck."""

    def transact(self, operations: Sequence[Operation[Any]], more: More) -> Sequence[Any]:
        return [TAKEN] * len(operations)

    def wait(self, operations: Sequence[Operation[Any]], others_wait: Callable[[], bool]) -> Sequence[Any]:
        return [TAKEN] * len(operations)


def test_each_caller_gets_an_answer_whatever_becomes_of_its_lock() -> None:
    nothing: Any = None
    committer = Committer(Stuck(nothing), SimpleNamespace(forget=lambda: None))  # type: ignore[arg-type]
    committer.start()
    with pytest.raises(DatabaseUnavailable):
        asyncio.run(asyncio.wait_for(committer.run(use(1)), 60))
    committer.close()


def use(number: int) -> Operation[int]:
    nothing: Any = None
    return Operation(nothing, lambda: (number,), Rules.SHARED, grouped=True)


@pytest.mark.parametrize("is_one_grant", [True, False])
def test_an_upload_waits_no_longer_for_copies_of_one_signature_than_for_others(is_one_grant: bool) -> None:
    engine, records = Counted(), SimpleNamespace(forget=lambda: None)
    committer = Committer(engine, records)  # type: ignore[arg-type]
    committer.start()

    async def all_of_them() -> int:
        copies = [asyncio.create_task(committer.run(use(0 if is_one_grant else -n))) for n in range(COPIES)]
        other = asyncio.create_task(committer.run(use(1)))
        await asyncio.sleep(0)  # now all are in the queue
        engine.go.set()
        await asyncio.gather(*copies)
        return await other

    # The thread may have begun its first group with one of them.
    assert asyncio.run(all_of_them()) <= 1 + -(-COPIES // MAX_GROUP)
    assert max(map(len, engine.groups)) <= MAX_GROUP
    assert sum(map(len, engine.groups)) == COPIES + 1
    committer.close()


class Failing(Engine):
    """Its first transaction, or its first look, waits until `go` and fails. Later ones succeed."""

    seconds = 60.0

    def __init__(self) -> None:
        nothing: Any = None
        super().__init__(nothing)
        self.go = threading.Event()
        self.failure: UponceError = no_answer("silent")
        self.begun: list[int] = []

    def transact(self, operations: Sequence[Operation[Any]], more: More) -> Sequence[Any]:
        assert self.go.wait(60)
        self.begun.append(len(operations))
        if len(self.begun) == 1:
            raise self.failure
        return ["ok"] * len(operations)

    def look(self) -> Any:
        return self.transact([], lambda: ())


def answers_of(engine: Failing, *, arrive: bool = False, closes: bool = False) -> list[Any]:
    """What many operations get that waited when the first group began."""
    records = SimpleNamespace(forget=lambda: None, refresh=lambda *_: None, failed=unavailable)
    committer = Committer(engine, records)  # type: ignore[arg-type]
    committer.start()

    async def answers() -> list[Any]:
        def one(number: int) -> Any:
            return committer.run_arrival(number, ready, 1) if arrive else committer.run(use(number))

        def ready(*_: Any) -> Any:
            raise AssertionError

        waiting = [asyncio.create_task(one(number)) for number in range(COPIES)]
        await asyncio.sleep(0)  # now all are in the queue
        closing = asyncio.create_task(asyncio.to_thread(committer.close)) if closes else None
        while closes and committer._open:
            await asyncio.sleep(0.001)
        engine.go.set()
        found = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 60)
        if closing:
            await closing
        return [getattr(each, "code", each) for each in found]

    found = asyncio.run(answers())
    committer.close()
    return found


@pytest.mark.parametrize("arrive", [False, True], ids=["operations", "arrivals"])
def test_after_a_failure_what_has_waited_too_long_does_not_begin(arrive: bool) -> None:
    """Each further transaction on a silent database would take its seconds, and so would the wait of all others."""
    engine = Failing()
    engine.seconds = 0
    assert answers_of(engine, arrive=arrive) == ["database_unavailable"] * COPIES
    assert len(engine.begun) == 1


def test_one_failure_ends_no_operation_that_came_a_moment_ago() -> None:
    engine = Failing()
    assert answers_of(engine).count("database_unavailable") == engine.begun[0] <= MAX_GROUP


def test_a_server_that_ends_does_not_wait_for_a_database_that_fails() -> None:
    engine = Failing()
    assert answers_of(engine, closes=True) == ["database_unavailable"] * COPIES
    assert len(engine.begun) == 1


def test_what_one_upload_has_done_wrong_ends_no_other_one() -> None:
    """PostgreSQL refuses the text of one operation: the database itself does not fail."""
    engine = Failing()
    engine.failure = InvalidParameter("no such text")
    assert answers_of(engine, closes=True).count("ok") == COPIES - engine.begun[0]


@pytest.mark.proof
def test_a_silent_server_keeps_no_upload_waiting() -> None:
    server = Postgres()
    server.start()
    try:
        url = prepared(server.fresh_schema())
        database = PostgresDatabase(url, secrets=PlainBox(), clock=SteppedClock(), seconds=60)
        database.open()
        wait_at_most(database, 1)
        server.pause(True)

        async def many() -> list[str]:
            uploads = (attempt(database, grant(f"{n}"), draft(f"{n}", blob=f"{n}")) for n in range(COPIES))
            return await asyncio.gather(*uploads)

        def refused() -> float:
            began = time.monotonic()
            assert set(run(many())) == {"database_unavailable"}
            return time.monotonic() - began

        assert in_time(10, refused)
        database.close()
    finally:
        server.pause(False)
        server.stop()
