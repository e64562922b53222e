"""Work of a cancelled request: it runs to its own end, and its failure is logged once, if it is one of the program."""

import asyncio
import gc
import logging
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from uponce.app.unbroken import finish_unbroken, later, unbroken
from uponce.core.errors import SignatureUsed


def complaints(play: Callable[[], Awaitable[None]]) -> list[str]:
    """Return what asyncio says of errors that no code has seen."""
    told: list[str] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
        await play()
        gc.collect()

    asyncio.run(run())
    return told


async def cancelled(wait: Callable[[Any], Awaitable[Any]], error: Exception) -> None:
    """Cancel a caller that waits for work, which then ends with this error."""
    go_on = asyncio.Event()

    async def work() -> None:
        await go_on.wait()
        raise error

    caller = asyncio.ensure_future(wait(work()))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    go_on.set()
    await asyncio.sleep(0.01)


def test_the_caller_gets_the_outcome() -> None:
    assert asyncio.run(unbroken(asyncio.sleep(0, 7))) == 7


def test_a_refusal_keeps_nothing_of_the_work_in_memory() -> None:
    """Without a garbage collection, which may come minutes later."""

    class Body:
        pass

    async def refuse(body: Body) -> None:
        await asyncio.sleep(0)
        raise SignatureUsed("No.")

    async def play() -> None:
        body = Body()
        there = weakref.ref(body)
        work = refuse(body)
        del body
        try:
            await unbroken(work)
        except SignatureUsed:
            del work
        await asyncio.sleep(0)  # the loop holds the outcome during this step
        assert there() is None

    gc.disable()
    try:
        asyncio.run(play())
    finally:
        gc.enable()


def test_a_refusal_that_no_caller_gets_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    assert complaints(lambda: cancelled(unbroken, SignatureUsed("No."))) == []
    assert not caplog.records


def test_a_failure_of_the_program_that_no_caller_gets_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert complaints(lambda: cancelled(unbroken, ValueError("a bug"))) == []
    assert [(record.levelno, record.exc_info[1].args) for record in caplog.records if record.exc_info] == [  # type: ignore[union-attr]
        (logging.ERROR, ("a bug",))
    ]


def test_without_it_a_refusal_would_be_one() -> None:
    """The control."""

    async def shielded(work: Any) -> None:
        await asyncio.shield(asyncio.ensure_future(work))

    assert complaints(lambda: cancelled(shielded, SignatureUsed("No."))) == ["Task exception was never retrieved"]


def test_work_for_later_runs_while_its_caller_goes_on_and_a_stop_waits_for_it() -> None:
    async def play() -> None:
        go_on, done = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            await go_on.wait()
            done.set()

        await asyncio.wait_for(later(work()), 1)
        stop = asyncio.create_task(finish_unbroken(9))
        await asyncio.sleep(0)
        assert not stop.done()
        go_on.set()
        await stop
        assert done.is_set()

    asyncio.run(play())


def test_a_caller_waits_for_its_work_if_much_waits_already() -> None:
    async def play() -> None:
        go_on = asyncio.Event()
        callers = [asyncio.create_task(later(go_on.wait())) for _ in range(20)]
        await asyncio.sleep(0.01)
        assert [caller.done() for caller in callers] == [True] * 16 + [False] * 4
        go_on.set()
        await asyncio.gather(*callers)
        await asyncio.wait_for(later(asyncio.Event().wait()), 1)

    asyncio.run(play())


@pytest.mark.parametrize(("error", "logged"), [(SignatureUsed("No."), 0), (ValueError("a bug"), 1)])
def test_only_a_failure_of_the_program_is_logged_of_work_for_later(
    caplog: pytest.LogCaptureFixture, error: Exception, logged: int
) -> None:
    async def fail() -> None:
        raise error

    async def play() -> None:
        await later(fail())
        await asyncio.sleep(0.01)

    assert complaints(play) == []
    assert len(caplog.records) == logged
