"""Work of a cancelled request: it runs to its own end, and its failure is told once, if it is one of the program."""

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from uponce.app.unbroken import unbroken
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
