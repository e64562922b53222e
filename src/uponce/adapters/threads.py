"""Blocking work off the event loop, on a few threads.

Not concurrent.futures: an executor has its own future with locks and a link to the loop's future. A trip to a thread
then takes some 20 µs of CPU under load, here some 4. Small requests make three to ten trips.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

from uponce.adapters.system import lower_priority

T = TypeVar("T")


class _Job(NamedTuple):
    work: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    lane: "Lane | None"


class ThreadsEnded(Exception):
    """Work was requested after `close`."""


class NoThread(Exception):
    """The system allows no thread for the work, so the work will not be done."""


class Threads:
    """At most `most` threads. One more starts if there is more work than threads. Event loops may share them.

    `modest` threads leave the processor to other threads of this process that have work.
    """

    def __init__(self, most: int, name: str, *, modest: bool = False) -> None:
        self._most = most
        self._modest = modest
        self._name = name
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._members: list[threading.Thread] = []
        self._gate = threading.Lock()
        self._unfinished = 0
        self._closed = False

    async def run(self, work: Callable[[], T]) -> T:
        """Return or raise what the work returns or raises. Raise ThreadsEnded after `close`, or NoThread.

        If the caller is cancelled, work that has begun goes on, and other work does not begin.
        """
        job = _job(work, None)
        if not self.put(job):
            raise ThreadsEnded
        result: T = await job.future
        return result

    def put(self, job: _Job) -> bool:
        """Let a thread do the job. Return False after `close`. Raise NoThread if no thread can start at all."""
        with self._gate:
            if self._closed:
                return False
            if len(self._members) < min(self._unfinished + 1, self._most):
                self._begin_thread()
            self._unfinished += 1
            self._queue.put(job)
        return True

    def close(self, *, within: float | None = None) -> None:
        """Finish all work that was requested before, then end the threads. Return `within` so many seconds at most.

        A thread that still works then goes on. It keeps no process from its end.
        """
        until = None if within is None else time.monotonic() + within
        with self._gate:
            self._closed = True
        for _ in self._members:
            self._queue.put(None)
        for member in self._members:
            member.join(None if until is None else max(0, until - time.monotonic()))

    def _begin_thread(self) -> None:
        name = f"{self._name}_{len(self._members)}"
        thread = threading.Thread(target=self._serve, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system allows no more threads: the running ones do the work
            if not self._members:
                raise NoThread(str(error)) from error
        else:
            self._members.append(thread)

    def _serve(self) -> None:
        if self._modest:
            _outcome(lower_priority)  # without raising: a thread that ended here would leave its work undone
        while self.do(self._queue.get()):
            pass  # no reference stays between two jobs: a result may close itself when its last reference goes

    def do(self, job: _Job | None) -> bool:
        """Do one job. Return False if it is None, which ends the thread."""
        if job is None:
            return False
        result, error = (None, None) if job.future.cancelled() else _outcome(job.work)
        with self._gate:
            self._unfinished -= 1
        if job.lane is not None:
            job.lane.go_on()
        _tell(job, result, error)
        return True


class Lane:
    """Work that is done in order, one job at a time, by any free thread.

    The next job begins without a trip to the event loop, but after other waiting work.
    """

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._is_busy = False
        self._jobs: deque[_Job] = deque()  # those that wait for the end of an earlier one
        self._gate = threading.Lock()

    async def run(self, work: Callable[[], T]) -> T:
        """Return or raise what `Threads.run` does."""
        job = _job(work, self)
        with self._gate:
            if self._is_busy:
                self._jobs.append(job)
            elif self._threads.put(job):
                self._is_busy = True
            else:
                raise ThreadsEnded
        result: T = await job.future
        return result

    def go_on(self) -> None:
        """Start the next job, if there is one."""
        with self._gate:
            job = self._jobs.popleft() if self._jobs else None
            self._is_busy = job is not None
        if job is not None and not self._threads.put(job):  # after `close`, jobs from before it are still done
            self._threads.do(job)


def _job(work: Callable[[], Any], lane: Lane | None) -> _Job:
    loop = asyncio.get_running_loop()
    return _Job(work, loop, loop.create_future(), lane)


def _outcome(work: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return work(), None
    except BaseException as error:
        return None, error


def _tell(job: _Job, result: Any, error: BaseException | None) -> None:
    with suppress(RuntimeError):  # the loop is closed, so no caller waits
        job.loop.call_soon_threadsafe(_settle, job.future, result, error)


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():  # the caller was cancelled
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
