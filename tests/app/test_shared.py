"""Work that many callers share: it runs once at a time, and goes on for the callers that still wait."""

import asyncio

from uponce.app.unbroken import Shared, finish_unbroken


class Work:
    """Waits until it may end, then returns how often it ran, or raises the error."""

    def __init__(self) -> None:
        self.runs = 0
        self.may_end = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.runs += 1
        await self.may_end.wait()
        if self.error is not None:
            raise self.error
        return self.runs


async def ask(shared: Shared[int], work: Work, callers: int = 1) -> "list[asyncio.Task[int]]":
    tasks = [asyncio.create_task(shared.get(work)) for _ in range(callers)]
    await asyncio.sleep(0)
    return tasks


def test_callers_join_the_work_that_runs() -> None:
    async def play() -> None:
        shared, work = Shared[int](), Work()
        tasks = await ask(shared, work, 50)
        work.may_end.set()
        assert set(await asyncio.gather(*tasks)) == {1}
        assert await shared.get(work) == 2

    asyncio.run(play())


def test_a_cancelled_caller_takes_the_work_from_no_other() -> None:
    async def play() -> None:
        shared, work = Shared[int](), Work()
        first, second = await ask(shared, work, 2)
        first.cancel()
        await asyncio.sleep(0)
        work.may_end.set()
        assert await second == 1
        assert first.cancelled()

    asyncio.run(play())


def test_the_stop_of_a_server_waits_for_the_work() -> None:
    async def play() -> None:
        shared, work = Shared[int](), Work()
        (task,) = await ask(shared, work)
        task.cancel()
        stop = asyncio.create_task(finish_unbroken(9))
        await asyncio.sleep(0)
        assert not stop.done()
        work.may_end.set()
        await stop
        assert work.runs == 1

    asyncio.run(play())


def test_an_error_is_for_those_that_wait_and_is_not_kept() -> None:
    async def play() -> None:
        shared, work = Shared[int](), Work()
        work.error = ValueError("a bug")
        tasks = await ask(shared, work, 2)
        work.may_end.set()
        assert [str(error) for error in await asyncio.gather(*tasks, return_exceptions=True)] == ["a bug", "a bug"]
        work.error = None
        assert await shared.get(work) == 2

    asyncio.run(play())
