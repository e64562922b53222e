"""Work on threads: the caller gets its result or its error, and a caller that is gone holds up no thread."""

import asyncio
import os
import threading
import time
import weakref
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from uponce.adapters.system import LINUX
from uponce.adapters.threads import Lane, NoThread, Threads, ThreadsEnded


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
    meeting = threading.Barrier(2, timeout=60)

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
        go.wait(60)
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
        asyncio.get_running_loop().call_soon(asyncio.ensure_future, threads.run(lambda: go.wait(60)))
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
        for _ in range(6000):  # until the thread has come back for more work
            await asyncio.sleep(0.01)
            if result() is None:
                return True
        return False

    assert asyncio.run(play())


# Lanes.


def test_a_lane_works_in_order_and_one_piece_at_a_time() -> None:
    threads, done, running, most = Threads(4, "test"), list[int](), 0, 0
    lane = Lane(threads)

    def work(number: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.001 * (5 - number % 5))
        done.append(number)
        running -= 1

    async def play() -> None:
        await asyncio.gather(*(lane.run(partial(work, number)) for number in range(20)))

    asyncio.run(play())
    threads.close()
    assert done == list(range(20))
    assert most == 1


def test_two_lanes_take_turns_on_one_thread() -> None:
    """The lane with more to do does not keep the other one from its thread."""
    threads, go, done = Threads(1, "test"), threading.Event(), list[str]()
    lanes = {name: Lane(threads) for name in "ab"}

    async def play() -> None:
        callers: list[asyncio.Future[Any]] = [asyncio.ensure_future(threads.run(lambda: go.wait(60)))]
        await asyncio.sleep(0)
        for name in "aaabbb":
            callers.append(asyncio.ensure_future(lanes[name].run(partial(done.append, name))))
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(*callers)

    asyncio.run(play())
    threads.close()
    assert "".join(done) == "ababab"


def test_work_behind_a_failure_is_done_all_the_same(threads: Threads) -> None:
    lane = Lane(threads)

    async def play() -> list[object]:
        return list(await asyncio.gather(lane.run(fail), lane.run(lambda: 2), return_exceptions=True))

    error, result = asyncio.run(play())
    assert isinstance(error, KeyError)
    assert result == 2


def test_a_lane_ends_what_was_asked_for_before_the_end() -> None:
    threads, go, done = Threads(1, "test"), threading.Event(), list[int]()
    lane = Lane(threads)

    async def play() -> None:
        callers: list[asyncio.Future[Any]] = [asyncio.ensure_future(lane.run(lambda: go.wait(60)))]
        callers += [asyncio.ensure_future(lane.run(partial(done.append, number))) for number in range(3)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(asyncio.to_thread(threads.close))
        while not threads._closed:
            await asyncio.sleep(0.001)
        go.set()
        await asyncio.gather(*callers)
        await closing
        with pytest.raises(ThreadsEnded):
            await lane.run(lambda: 1)

    asyncio.run(asyncio.wait_for(play(), 60))
    assert done == [0, 1, 2]


@pytest.mark.skipif(not LINUX, reason="only Linux has a priority for each thread")
def test_modest_threads_leave_the_processor_to_others() -> None:
    modest, other = Threads(1, "modest", modest=True), Threads(1, "other")

    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    async def play() -> tuple[int, int]:
        return await modest.run(priority), await other.run(priority)

    lower, usual = asyncio.run(play())
    for threads in (modest, other):
        threads.close()
    assert usual == os.getpriority(os.PRIO_PROCESS, 0)
    assert lower == min(usual + 10, 19)  # which is as low as there is


def test_modest_threads_work_where_the_system_forbids_a_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a service manager's filter of system calls may do."""
    tried = threading.Event()

    def refuse(*_: int) -> None:
        tried.set()
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "setpriority", refuse)
    modest = Threads(1, "modest", modest=True)
    assert asyncio.run(asyncio.wait_for(modest.run(lambda: 1), 60)) == 1
    modest.close()
    assert tried.is_set() is LINUX


def test_no_start_of_a_thread_loses_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uponce.adapters.threads.lower_priority", fail)
    modest = Threads(1, "modest", modest=True)
    assert asyncio.run(asyncio.wait_for(modest.run(lambda: 1), 60)) == 1
    modest.close()


def test_where_the_system_allows_no_more_threads_the_ones_that_run_do_the_work(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where it allows none, the caller knows at once, and later work is done."""
    lane, real = Lane(threads), threading.Thread.start

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def play() -> list[object]:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        for runs in (threads.run, lane.run):
            with pytest.raises(NoThread, match="new thread"):
                await runs(lambda: 0)
        monkeypatch.setattr(threading.Thread, "start", real)
        first = await lane.run(lambda: 1)
        monkeypatch.setattr(threading.Thread, "start", refuse)
        return [first, *await asyncio.gather(*(run(lambda: 2) for run in (threads.run, lane.run, threads.run)))]

    assert asyncio.run(asyncio.wait_for(play(), 60)) == [1, 2, 2, 2]
