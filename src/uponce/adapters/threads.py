"""Blocking work off the event loop, on a few threads.

Not concurrent.futures: with an executor's own future, its locks and its link to the loop's future, a hop takes some
20 µs of CPU under load, here some 4. Small requests make three to ten of them.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class _Job(NamedTuple):
    work: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


class ThreadsEnded(Exception):
    """Work was asked for after `close`."""


class Threads:
    """At most `most` threads, one more when there is more work than threads. Event loops may share them."""

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._members: list[threading.Thread] = []
        self._gate = threading.Lock()
        self._unfinished = 0
        self._closed = False

    async def run(self, work: Callable[[], T]) -> T:
        """What the work returns or raises; ThreadsEnded after `close`.

        Of a caller that is cancelled the work goes on if it has begun, and is not begun otherwise.
        """
        loop = asyncio.get_running_loop()
        job = _Job(work, loop, loop.create_future())
        with self._gate:
            if self._closed:
                raise ThreadsEnded
            self._unfinished += 1
            if len(self._members) < min(self._unfinished, self._most):
                self._begin_thread()
            self._queue.put(job)
        result: T = await job.future
        return result

    def close(self) -> None:
        """Do what was asked for before, then end."""
        with self._gate:
            self._closed = True
        for _ in self._members:
            self._queue.put(None)
        for member in self._members:
            member.join()

    def _begin_thread(self) -> None:
        name = f"{self._name}_{len(self._members)}"
        self._members.append(threading.Thread(target=self._serve, name=name, daemon=True))
        self._members[-1].start()

    def _serve(self) -> None:
        while self._do(self._queue.get()):
            pass  # nothing is held on to between two jobs: a result may close itself when nobody has it

    def _do(self, job: _Job | None) -> bool:
        """Whether there was one."""
        if job is None:
            return False
        result, error = (None, None) if job.future.cancelled() else _outcome(job.work)
        with self._gate:
            self._unfinished -= 1
        _tell(job, result, error)
        return True


def _outcome(work: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return work(), None
    except BaseException as error:
        return None, error


def _tell(job: _Job, result: Any, error: BaseException | None) -> None:
    with suppress(RuntimeError):  # a closed loop has nobody waiting
        job.loop.call_soon_threadsafe(_settle, job.future, result, error)


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():  # the caller was cancelled
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
