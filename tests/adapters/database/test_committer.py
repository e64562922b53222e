"""How long operations wait for the committing thread: behind many uses of one grant, and while the database fails."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from tests.contract.databases import CALLER, grant
from uponce.adapters.database import committer as committer_module
from uponce.adapters.database.committer import TAKEN, Committer, More
from uponce.adapters.database.failures import no_answer
from uponce.adapters.database.postgres.connection import unavailable
from uponce.adapters.database.postgres.pool import MAX_GROUP, Engine
from uponce.adapters.database.steps import Operation, Rules
from uponce.app.ports import Refusal
from uponce.core.errors import DatabaseUnavailable, InvalidParameter, SignatureUsed, StorageFull, UponceError

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


def refused(arrivals: Sequence[Any], _: Any) -> Sequence[Any]:
    return [Refusal(grant(f"{arrival}"), CALLER, SignatureUsed("used")) for arrival in arrivals]


class Sequenced(Engine):
    """`steps` say in turn what becomes of the numbers of a transaction. Of other numbers it is "ok".

    A transaction that has begun waits until it may `go` on. With `more`, it takes along what has arrived by then.
    """

    seconds = 60.0

    def __init__(self, *steps: Mapping[int, Any] | UponceError, more: bool = False) -> None:
        nothing: Any = None
        super().__init__(nothing)
        self.steps = iter(steps)
        self.go = threading.Semaphore(0)
        self.more = more
        self.groups: list[list[int]] = []
        self.begun = 0
        self.waited: list[bool] = []
        self.chosen: Callable[[int], bool] = lambda _: True

    def look(self) -> Any:
        return None, 0.0, None

    def choose(self, operations: Sequence[Operation[Any]]) -> Sequence[bool]:
        return [self.chosen(*each.numbers()) for each in operations]

    def transact(self, operations: Sequence[Operation[Any]], more: More) -> Sequence[Any]:
        self.begun += 1
        assert self.go.acquire(timeout=60)
        taken = [*operations, *more()] if self.more else operations
        numbers = [number for each in taken for number in each.numbers()]
        self.groups.append(numbers)
        outcomes = next(self.steps, {})
        if isinstance(outcomes, UponceError):
            raise outcomes
        return [outcomes.get(number, "ok") for number in numbers]

    def wait(self, operations: Sequence[Operation[Any]], others_wait: Callable[[], bool]) -> Sequence[Any]:
        self.waited.append(others_wait())
        return ["waited"] * len(operations)

    async def in_transaction(self, number: int = 1) -> None:
        await within(until(lambda: self.begun >= number))


@contextmanager
def started(engine: Engine) -> Iterator[Committer]:
    records = SimpleNamespace(forget=lambda: None, refresh=lambda *_: None, failed=unavailable)
    committer = Committer(engine, records)  # type: ignore[arg-type]
    committer.start()
    yield committer
    committer.close()


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


@pytest.fixture
def long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A young operation stays young, and waits for another one without end."""
    monkeypatch.setattr(committer_module, "_YOUNG_SECONDS", 1000)
    monkeypatch.setattr(committer_module, "_PAUSE_SECONDS", 1000)


async def within(waiting: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(waiting, 30)


async def until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0.001)


async def queued(*callers: Coroutine[Any, Any, Any]) -> list[asyncio.Task[Any]]:
    tasks = [asyncio.create_task(each) for each in callers]
    await asyncio.sleep(0)
    return tasks


async def results(tasks: Sequence[asyncio.Task[Any]]) -> list[Any]:
    found: list[Any] = await within(asyncio.gather(*tasks, return_exceptions=True))
    return found


@pytest.mark.usefixtures("long_pauses")
def test_a_young_operation_alone_is_tried_again_with_the_next_one() -> None:
    engine = Sequenced({1: TAKEN})

    async def story(committer: Committer) -> list[Any]:
        engine.go.release(9)
        young = await queued(committer.run(use(1)))
        await within(until(lambda: bool(engine.groups)))
        await asyncio.sleep(0.05)
        assert engine.begun == 1  # it pauses
        return await results([*young, *await queued(committer.run(use(2)))])

    with started(engine) as committer:
        assert asyncio.run(story(committer)) == ["ok", "ok"]
    assert engine.groups == [[1], [2, 1]]


@pytest.mark.usefixtures("long_pauses")
def test_a_committer_that_closes_ends_a_pause_and_answers() -> None:
    engine = Sequenced({1: TAKEN})

    async def story(committer: Committer) -> Any:
        engine.go.release(9)
        young = await queued(committer.run(use(1)))
        await within(until(lambda: bool(engine.groups)))
        await within(asyncio.to_thread(committer.close))
        return await results(young)

    with started(engine) as committer:
        assert asyncio.run(story(committer)) == ["ok"]


def test_a_young_operation_alone_is_tried_again_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer_module, "_YOUNG_SECONDS", 1000)
    engine = Sequenced({1: TAKEN})
    engine.go.release(9)
    with started(engine) as committer:
        assert asyncio.run(within(committer.run(use(1)))) == "ok"
    assert engine.groups == [[1], [1]]


@pytest.mark.usefixtures("long_pauses")
def test_nothing_pauses_while_an_arrival_waits() -> None:
    engine = Sequenced({1: TAKEN}, more=True)

    async def story(committer: Committer) -> list[Any]:
        young = await queued(committer.run(use(1)))
        await engine.in_transaction()
        arrival = await queued(committer.run_arrival(2, refused, 1))
        engine.go.release(9)
        return await results([*young, *arrival])

    with started(engine) as committer:
        assert asyncio.run(story(committer)) == ["ok", "ok"]


@pytest.mark.usefixtures("long_pauses")
@pytest.mark.parametrize("other", [2, 1], ids=["another signature", "the same"])
def test_only_what_needs_no_such_lock_ends_a_pause(other: int) -> None:
    """The first transaction had no place for the other one."""
    engine = Sequenced({}, {1: TAKEN})
    places = count()
    engine.chosen = lambda _: engine.begun != 1 or next(places) == 0

    async def story(committer: Committer) -> list[Any]:
        tasks = await queued(committer.run(use(0)))
        await engine.in_transaction()
        tasks += await queued(committer.run(use(1)), committer.run(use(other)))
        engine.go.release(9)
        if other == 1:
            await within(until(lambda: len(engine.groups) == 2))
            await asyncio.sleep(0.05)
            assert engine.begun == 2  # it pauses
            tasks += await queued(committer.run(use(3)))
        return await results(tasks)

    with started(engine) as committer:
        assert set(asyncio.run(story(committer))) == {"ok"}
    assert engine.groups[:2] == [[0], [1]]


@pytest.mark.parametrize("waits", ["nothing", "in the queue", "put back"])
def test_a_wait_for_a_lock_knows_whether_others_wait(waits: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer_module, "_YOUNG_SECONDS", -1000)
    engine = Sequenced({}, {1: TAKEN})
    engine.chosen = lambda number: number != 2 or engine.begun > 1
    if waits == "in the queue":
        engine.most = 1

    async def story(committer: Committer) -> list[Any]:
        tasks = await queued(committer.run(use(0)))
        await engine.in_transaction()
        tasks += await queued(*(committer.run(use(number)) for number in ([1] if waits == "nothing" else [1, 2])))
        engine.go.release(9)
        return await results(tasks)

    with started(engine) as committer:
        assert asyncio.run(story(committer))[:2] == ["ok", "waited"]
    assert engine.waited == [waits != "nothing"]


@pytest.mark.parametrize("others", [[], [1]], ids=["alone", "beside another"])
def test_bytes_that_do_not_become_durable_fail_no_operation_that_needs_none(others: list[int]) -> None:
    """Without others there is no second transaction."""
    engine = Sequenced({}, StorageFull("full"))

    async def story(committer: Committer) -> list[Any]:
        tasks = await queued(committer.run(use(0)))
        await engine.in_transaction()
        tasks += await queued(*(committer.run(use(each)) for each in others), committer.run_arrival(9, refused, 1))
        engine.go.release(9)
        return await results(tasks)

    with started(engine) as committer:
        *ok, full = asyncio.run(story(committer))
    assert (ok, full.code) == (["ok"] * (1 + len(others)), "storage_full")
    assert engine.groups[2:] == [others] * len(others)


def test_the_operator_reads_why_steps_failed_and_what_others_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    engine, begun, go = Sequenced(), threading.Event(), threading.Event()
    engine.seconds = 0.0

    def fail(*_: Any) -> Any:
        begun.set()
        assert go.wait(60)
        raise ZeroDivisionError("a defect")

    async def story(committer: Committer) -> list[Any]:
        tasks = await queued(committer.run_arrival(1, fail, 1))
        await within(until(begun.is_set))
        tasks += await queued(committer.run(use(2)))
        go.set()
        return await results(tasks)

    with started(engine) as committer:
        own, others = asyncio.run(story(committer))
    assert "ZeroDivisionError: a defect" in own.for_operator
    assert f"it waited for operations that failed: {own.for_operator}" in others.for_operator
    assert "the steps of a group of uploads failed" in caplog.messages
