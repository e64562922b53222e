"""Blocking work of a use case in a thread of the event loop."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from uponce.core.errors import ServerBusy

T = TypeVar("T")


def in_a_thread(work: Callable[[], T]) -> asyncio.Future[T]:
    """Begin the work. Return its future result. Raise ServerBusy if no thread can start: the work then never begins.

    The loop keeps what no thread took. So the work is in a list, which is then emptied, and its data do not stay.
    """
    jobs = [work]

    def run() -> T:
        return jobs.pop()()

    try:
        return asyncio.get_running_loop().run_in_executor(None, run)
    except RuntimeError as error:
        jobs.clear()
        raise ServerBusy(
            "The server can start no thread now, so it has done nothing. Send the same request again later.",
            detail=f"{error}: see the limit of threads (ulimit -u, TasksMax, or the pids limit of a container)",
        ) from error
