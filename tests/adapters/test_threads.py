"""Work on threads: its outcome comes back, whatever it is; who does not wait any more is not waited for."""

import asyncio
import threading
import weakref
from collections.abc import Iterator

import pytest

from uponce.adapters.threads import Threads, ThreadsEnded


@pytest.fixture
def threads() -> Iterator[Threads]:
    made = Threads(2, "test")
    yield made
    made.close()


def fail() -> None:
    raise KeyError("why")


def test_results_and_errors_come_back(threads: Threads) -> None:
    async def play() -> list[object]:
        return list(await asyncio.gather(threads.run(lambda: 1), threads.run(fail), return_exceptions=True))

    for _ in range(2):  # event loops may follow one another
        result, error = asyncio.run(play())
        assert result == 1
        assert isinstance(error, KeyError)


def test_they_work_side_by_side_and_off_the_loop(threads: Threads) -> None:
    meeting = threading.Barrier(2, timeout=10)

    def meet() -> str:
        meeting.wait()
        return threading.current_thread().name

    async def play() -> list[str]:
        return list(await asyncio.gather(threads.run(meet), threads.run(meet)))

    assert sorted(asyncio.run(play())) == ["test_0", "test_1"]


def test_work_of_a_cancelled_caller_goes_on_if_it_has_begun_and_is_not_begun_otherwise() -> None:
    threads, begun, go, done = Threads(1, "test"), threading.Event(), threading.Event(), list[str]()

    def first() -> None:
        begun.set()
        go.wait(10)
        done.append("first")

    async def play() -> None:
        callers = [
            asyncio.ensure_future(threads.run(first)),
            asyncio.ensure_future(threads.run(lambda: done.append("second"))),
        ]
        while not begun.is_set():
            await asyncio.sleep(0.001)
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
        go.set()
        await threads.run(lambda: done.append("third"))

    asyncio.run(play())
    threads.close()
    assert done == ["first", "third"]


def test_close_lets_end_what_was_asked_for() -> None:
    threads, done = Threads(2, "test"), list[int]()

    async def play() -> None:
        callers = [asyncio.ensure_future(threads.run(lambda: done.append(1))) for _ in range(50)]
        await asyncio.sleep(0)
        threads.close()
        assert len(done) == 50
        await asyncio.gather(*callers)
        with pytest.raises(ThreadsEnded):
            await threads.run(lambda: 1)

    asyncio.run(play())


def test_unused_threads_end_too() -> None:
    Threads(2, "test").close()


def test_a_loop_that_ended_is_told_nothing(threads: Threads) -> None:
    """And the thread lives on."""
    go = threading.Event()

    async def leave() -> None:
        asyncio.get_running_loop().call_soon(asyncio.ensure_future, threads.run(lambda: go.wait(10)))
        await asyncio.sleep(0.01)

    asyncio.run(leave())
    go.set()
    assert asyncio.run(threads.run(lambda: 1)) == 1


def test_nothing_holds_a_result_that_nobody_has(threads: Threads) -> None:
    """An open file closes itself then."""

    class Result:
        pass

    async def play() -> bool:
        result = weakref.ref(await threads.run(Result))
        for _ in range(100):  # until the thread has come back for more work
            await asyncio.sleep(0.01)
            if result() is None:
                return True
        return False

    assert asyncio.run(play())
