"""Whom many uses of one grant keep waiting in the committing thread: only one another."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from uponce.adapters.database.committer import TAKEN, Committer, More
from uponce.adapters.database.postgres.pool import MAX_GROUP, Engine
from uponce.adapters.database.steps import Operation, Rules
from uponce.core.errors import DatabaseUnavailable

COPIES = 1000


class Counted(Engine):
    """Answers each operation with the number of its transaction. The first one waits until `go`."""

    def __init__(self) -> None:
        nothing: Any = None
        super().__init__(nothing)
        self.go = threading.Event()
        self.groups: list[Sequence[int]] = []

    def transact(self, operations: Sequence[Operation[Any]], more: More) -> Sequence[Any]:
        assert self.go.wait(20)
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
        asyncio.run(asyncio.wait_for(committer.run(use(1)), 5))
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
